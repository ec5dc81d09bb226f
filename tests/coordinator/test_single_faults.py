"""Every fault at every point of a small run, alone and in pairs: the same bits or the error to be expected, never a hang.

A run is three steps, each with three rounds: gradients, the update by the workers, an evaluation of the training rows.
"""

import itertools

import pytest
from fakes import Fault
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import DURING, STEPS, small_model

from shardsgd.coordinator.plan import Patience
from shardsgd.errors import LeafError, WorkersLostError
from shardsgd.workers.exchange import EvaluationRequest, GradientRequest, UpdateRequest

PATIENCE = Patience(hang_seconds=2.0, late_seconds=0.05, first_seconds=4.0)
# Of the fake's clock: no fault costs more than to wait for a worker that hangs, and for another to start.
LONGEST_S = PATIENCE.first_seconds + 3.0
MOST_RECEIVES = 400
ROUNDS = [(step, during) for step in range(STEPS) for during in DURING]
# What a worker takes to start; None: there are no others.
REPLACEMENTS = {"none": None, "at once": 0.0, "later": 0.3}

DEADLY = {"kill": 1.0, "die after": 1.0, "hang": 1.0, "notice": 1.0}
# Their answers are not confirmed, so they are killed.
UNTRUSTED = {"raise": 1.0, "nan": 1.0, "corrupt": 1.0}
HARMLESS = {"slow": 0.5, "answer twice": 1.0, "answer late": 1.0}
KINDS = DEADLY | UNTRUSTED | HARMLESS | {"too slow": 3.0}


def fault_of(kind, worker, step, during):
    """Evaluations are at the parameters after the step."""
    return Fault(
        "slow" if kind == "too slow" else kind,
        worker,
        step + (during == "evaluation"),
        DURING[during],
        seconds=KINDS[kind],
    )


@pytest.fixture(scope="module")
def model():
    with small_model() as one:
        yield one


def small_run(model, *faults, start_seconds, **options):
    wait_seconds = 1.0 if start_seconds is None else 60.0
    return model.run(
        *faults,
        patience=PATIENCE,
        start_seconds=start_seconds,
        wait_seconds=wait_seconds,
        most_receives=MOST_RECEIVES,
        **options,
    )


def expected_error(kind, step, during, workers, replacement):
    """A lone worker that nobody replaces must not be lost, unless nothing is left to be asked of it."""
    if workers > 1 or replacement != "none" or kind in HARMLESS:
        return None
    if kind in ("nan", "corrupt") and during != "gradients":
        return None  # there is no gradient to corrupt
    if kind == "too slow" and (step, during) in ((0, "gradients"), (0, "update"), (0, "evaluation")):
        return None  # nothing is usual in a first round: it may take longer
    unanswered = kind in ("kill", "hang", "too slow")
    return WorkersLostError if unanswered or (step, during) != ROUNDS[-1] else None


@pytest.mark.parametrize("during", DURING)
@pytest.mark.parametrize("kind", KINDS)
def test_any_single_fault_ends_in_the_same_bits_or_for_want_of_workers(model, kind, during):
    for workers in (1, 2, 3):
        orders = (False, True) if workers > 1 else (False,)
        cases = itertools.product(range(workers), range(STEPS), REPLACEMENTS, orders)
        for worker, step, replacement, reverse in cases:
            if kind == "corrupt" and step == 0:
                continue  # what there is nothing to compare with is only found by computing it twice: see below
            case = f"{workers=} {worker=} {step=} {replacement=} {reverse=}"
            fault = fault_of(kind, worker, step, during)
            run = small_run(model, fault, workers=workers, start_seconds=REPLACEMENTS[replacement], reverse=reverse)
            try:
                run.ends_as(model, expected_error(kind, step, during, workers, replacement))
                assert run.exchange.fired == {fault: 1}
                assert run.exchange.time.now <= LONGEST_S
            except AssertionError as error:
                raise AssertionError(case) from error


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kind", ["nan", "corrupt"])
def test_where_all_is_computed_twice_no_wrong_gradient_is_used_even_in_the_first_step(model, kind, workers):
    for worker, step, reverse in itertools.product(range(workers), range(STEPS), (False, True)):
        fault = fault_of(kind, worker, step, "gradients")
        run = small_run(model, fault, workers=workers, start_seconds=0.0, reverse=reverse, verify=1.0)
        run.ends_as(model)
        assert run.exchange.fired == {fault: 1}


PAIR_STEPS = 2
PAIRED = ["kill", "die after", "raise", "hang", "slow", "nan", "corrupt", "notice"]


def single_faults():
    for kind, worker, step, during in itertools.product(PAIRED, range(2), range(PAIR_STEPS), ("gradients", "update")):
        if not (kind == "corrupt" and step == 0) and not (kind in ("nan", "corrupt") and during != "gradients"):
            yield fault_of(kind, worker, step, during)


@pytest.mark.parametrize("kind", PAIRED)
def test_any_two_faults_end_in_the_same_bits_where_workers_can_be_replaced(model, kind):
    faults = list(single_faults())
    fired = 0
    pairs = [pair for pair in itertools.combinations(faults, 2) if pair[0].kind == kind]
    for number, pair in enumerate(pairs):
        run = small_run(
            model, *pair, workers=2, steps=PAIR_STEPS, start_seconds=(0.0, 0.3)[number % 2], reverse=number % 3 == 0
        )
        try:
            run.ends_as(model)
            # The first to have an occasion happens; the second may have none, if its worker is gone.
            assert set(run.exchange.fired.values()) == {1}
            assert run.exchange.time.now <= 2 * LONGEST_S
        except AssertionError as error:
            raise AssertionError(str(pair)) from error
        fired += run.exchange.fired.total()
    assert fired > 1.5 * len(pairs), "most did happen"


SCHEDULED = ["kill", "die after", "hang", "slow", "raise", "nan", "corrupt", "notice", "answer twice", "answer late"]
FAULTS = st.builds(
    Fault,
    st.sampled_from(SCHEDULED),
    worker=st.integers(0, 2),
    step=st.integers(0, 2),
    during=st.sampled_from([GradientRequest, GradientRequest, UpdateRequest, EvaluationRequest]),
    seconds=st.sampled_from([0.01, 0.2, 0.5, 3.0]),
    late_by=st.sampled_from([0.0, 0.0, 0.1, 0.4]),
)


def at_one_time(fired, kind):
    """The most faults of a kind that happened in one round."""
    rounds = [(fault.step, fault.during) for fault in fired if fault.kind == kind]
    return max((rounds.count(each) for each in rounds), default=0)


@settings(max_examples=400)
@given(st.lists(FAULTS, max_size=7, unique=True), st.integers(1, 3), st.sampled_from([0.0, 0.3]), st.booleans())
def test_any_few_faults_end_in_the_same_bits_or_in_an_error_that_they_explain(model, faults, workers, start, reverse):
    faults = [fault for fault in faults if fault.kind != "corrupt" or fault.step > 0]
    run = model.run(
        *faults, workers=workers, start_seconds=start, reverse=reverse, patience=PATIENCE, most_receives=2000
    )
    fired = run.exchange.fired
    assert set(fired.values()) <= {1}
    if max(at_one_time(fired, "corrupt"), at_one_time(fired, "nan")) > 1:
        return  # wrong answers that are alike may confirm each other
    run.ends_as(model, LeafError if type(run.error) is LeafError and at_one_time(fired, "raise") > 1 else None)
