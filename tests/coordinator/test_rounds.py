"""Rounds over the fake exchange: who is asked for what others do not answer, or answer late; what is counted and noted."""

import pytest
from fakes import Fault
from small_model import DURING, STEPS, Run, logged, pass_time, small_model

from shardsgd.coordinator.plan import Patience
from shardsgd.workers.exchange import EvaluationRequest, GradientRequest, UpdateRequest

PATIENCE = Patience(hang_seconds=2.0, late_seconds=0.05, first_seconds=4.0)


@pytest.fixture(scope="module")
def model():
    with small_model() as one:
        yield one


def test_a_run_that_nothing_disturbs_repeats_and_notes_nothing(model):
    run = model.run(workers=3)
    run.ends_as(model)
    assert (run.rounds.leaves, run.rounds.repeated, run.rounds.dropped) == (4 * STEPS, 0, 0)
    assert run.incidents() == []
    assert run.members.losses == 0


def test_a_death_is_counted_and_noted(model):
    run = model.run(Fault("kill", 1, 1), workers=3, start_seconds=0.0)
    run.ends_as(model)
    assert (run.rounds.leaves, run.rounds.repeated, run.rounds.dropped) == (4 * STEPS, 1, 0)
    assert run.members.losses == 1
    assert run.book() == [("lost", 1), ("joined", 1), ("recovered", None)]
    assert {each.step for each in run.incidents()} == {1}
    lost, _, recovered = run.incidents()
    assert lost.reason == "killed"
    assert (recovered.leaves, recovered.seconds) == (1, 0)


def test_what_a_recovery_took_is_noted(model):
    run = model.run(Fault("kill", 0, 1), workers=1, start_seconds=1.5)
    run.ends_as(model)
    (recovered,) = run.incidents("recovered")
    assert recovered.leaves == 4
    assert run.exchange.time.now == pytest.approx(1.5, abs=0.1)


def test_a_replacement_is_asked_from_the_next_round_on(model):
    run = model.run(Fault("kill", 1, 1), workers=2, start_seconds=0.0)
    run.ends_as(model)
    assert run.exchange.started == [1]
    assert run.asked(step=1) == [(0, 0, 2), (1, 2, 4), (0, 2, 4)]
    assert run.asked(step=2) == [(0, 0, 2), (1, 2, 4)]


def test_a_replacement_that_joins_within_the_round_takes_over_what_is_late(model):
    faults = [Fault("kill", 1, 1), Fault("slow", 0, 1, seconds=1.0)]
    run = model.run(*faults, workers=2, start_seconds=0.2)
    run.ends_as(model)
    assert run.exchange.time.now < 1.0
    assert {(1, 0, 2), (1, 2, 4)} <= set(run.asked(step=1)[2:])


@pytest.mark.parametrize("during", DURING)
def test_a_worker_that_hangs_is_killed_when_its_time_is_up(model, during):
    """Its leaves go to others before that; its blocks not before it is dead: both would write to the same memory."""
    kind, step = DURING[during], 1 + (during == "evaluation")
    loop, exchange = model.loop(Fault("hang", 1, step, kind), workers=3, start_seconds=0.0, patience=PATIENCE)
    loop.evaluate("train")
    log = logged(exchange)
    pass_time(exchange, 0.05)
    run = Run(loop, exchange, steps=30)
    run.ends_as(model)
    asked = [
        (what, worker, when, request)
        for what, worker, when, request in log
        if isinstance(request, kind) and request.step == step
    ]
    (at, theirs) = next((when, request) for _, worker, when, request in asked if worker == 1)
    (killed_at,) = [when for what, worker, when, _ in log if what == "kill"]
    assert killed_at - at == pytest.approx(PATIENCE.hang_seconds, abs=0.2)
    others_at = [
        when for _, worker, when, request in asked if worker != 1 and theirs.start <= request.start < theirs.stop
    ]
    lost = next(place for place, entry in enumerate(log) if entry[0] == "lost")
    asked_after = [entry for entry in log[lost:] if entry in asked and theirs.start <= entry[3].start < theirs.stop]
    if kind is UpdateRequest:
        assert len(asked_after) == len(others_at) > 0
    else:
        assert max(others_at) - at < 0.2
    (incident,) = run.incidents("lost")
    assert incident.reason.startswith("no answer for 2")


def test_a_first_evaluation_may_take_longer(model):
    slow = [Fault("slow", worker, 1, EvaluationRequest, seconds=3.5) for worker in range(2)]
    run = model.run(*slow, workers=2, patience=PATIENCE, start_seconds=0.0)
    run.ends_as(model)
    assert run.members.losses == 0


def test_a_first_evaluation_of_a_worker_that_took_the_number_of_another_may_take_longer(model):
    """Worker 1 is given notice; the one that replaces it has to compile the evaluation program too."""
    faults = [Fault("notice", 1, 1), Fault("slow", 1, 3, EvaluationRequest, seconds=3.5)]
    loop, exchange = model.loop(*faults, workers=2, patience=PATIENCE, start_seconds=0.0)
    # Worker 1's predecessor has evaluated in the first step; the replacement does so for the first time in the third.
    pass_time(exchange, 0.05)
    evaluate = loop.evaluate
    loop.evaluate = lambda split: evaluate(split) if loop.state.step != 2 else None
    for _ in range(30):
        loop.step()
        loop.evaluate("train")
    assert exchange.started == [1]
    assert exchange.fired.total() == 2
    assert loop._rounds.members.losses == 0


@pytest.fixture(scope="module")
def straggling(model):
    """Worker 0 takes a second for its leaves of step 1; each wait takes 20 ms."""
    loop, exchange = model.loop(Fault("slow", 0, 1, seconds=1.0), workers=3, patience=PATIENCE)
    pass_time(exchange, 0.02)
    run = Run(loop, exchange, steps=30)
    run.ends_as(model)
    return run


def test_leaves_of_a_straggler_are_computed_by_others_once(straggling):
    assert straggling.asked(step=1) == [(0, 0, 2), (1, 2, 3), (2, 3, 4), (1, 0, 1), (2, 1, 2)]


def test_a_straggler_is_asked_nothing_before_it_has_answered(straggling):
    idle = [step for step in range(30) if 0 not in {worker for worker, *_ in straggling.asked(step=step)}]
    assert idle == list(range(2, 2 + len(idle)))
    assert 5 < len(idle) < 20
    assert straggling.asked(step=29) == [(0, 0, 2), (1, 2, 3), (2, 3, 4)]


def test_the_answer_of_a_straggler_is_dropped_and_counted(straggling):
    rounds = straggling.rounds
    assert (rounds.leaves, rounds.repeated, rounds.dropped) == (4 * 30, 2, 1)


def test_a_straggler_is_not_lost(straggling):
    assert straggling.book() == [("recovered", None)]
    assert straggling.exchange.alive == [0, 1, 2]


def test_a_straggler_is_asked_if_there_is_nobody_else(model):
    loop, exchange = model.loop(Fault("slow", 0, 1, seconds=1.0), Fault("kill", 1, 2), workers=2, patience=PATIENCE)
    pass_time(exchange, 0.02)
    run = Run(loop, exchange)
    run.ends_as(model)
    assert (0, 0, 4) in run.asked(step=2)


# Workers 1 and 2 answer what they are asked first at once; and then, of what worker 0 is late with, leaf 0 and leaf 1.
SOON = [Fault("slow", worker, 1, seconds=0.001) for worker in (1, 2)]


def test_a_straggler_that_answers_before_both_parts_of_its_duplicate_do_is_used(model):
    slow = [Fault("slow", 0, 1, seconds=0.3), *(Fault("slow", worker, 1, seconds=1.0) for worker in (1, 2))]
    run = model.run(*SOON, *slow, workers=3, patience=PATIENCE)
    run.ends_as(model)
    assert run.exchange.fired.total() == 5
    assert run.exchange.time.now == pytest.approx(0.3, abs=0.06)


def test_a_straggler_that_answers_between_both_parts_of_its_duplicate_is_dropped(model):
    slow = [Fault("slow", 0, 1, seconds=0.3), Fault("slow", 1, 1, seconds=0.1), Fault("slow", 2, 1, seconds=1.0)]
    run = model.run(*SOON, *slow, workers=3, patience=PATIENCE)
    run.ends_as(model)
    assert run.exchange.fired.total() == 5
    assert run.rounds.dropped >= 1


def test_where_one_part_is_answered_and_the_other_lost_the_other_goes_to_somebody_else(model):
    faults = [Fault("slow", 0, 1, seconds=0.3), *SOON, Fault("kill", 2, 1)]
    run = model.run(*faults, workers=3, patience=PATIENCE)
    run.ends_as(model)
    assert run.exchange.fired.total() == 4
    assert run.asked(step=1)[3:] == [(1, 0, 1), (2, 1, 2), (1, 1, 2)]


def test_no_worker_writes_a_sum_over_one_that_counts(model):
    """Worker 0 fails on leaves 0 and 1 when 1 and 2 are at one of them each; who had to do both again would do leaf 0 over."""
    faults = [Fault("raise", 0, 1, late_by=0.2), *SOON, *(Fault("slow", worker, 1, seconds=0.5) for worker in (1, 2))]
    run = model.run(*faults, workers=3, patience=PATIENCE, start_seconds=0.0)
    run.ends_as(model)
    assert run.exchange.fired.total() == 5


def test_notice_costs_nothing(model):
    run = model.run(Fault("notice", 1, 1), workers=3, start_seconds=0.0)
    run.ends_as(model)
    assert (run.rounds.repeated, run.rounds.dropped, run.members.losses) == (0, 0, 0)
    assert run.exchange.started == [1]
    assert run.book() == [("left", 1), ("joined", 1)]
    assert run.asked(step=1) == [(0, 0, 2), (1, 2, 3), (2, 3, 4)]


def test_notice_costs_nothing_where_a_step_has_to_wait_for_the_replacement(model):
    run = model.run(Fault("notice", 0, 1), workers=1, start_seconds=1.5)
    run.ends_as(model)
    assert (run.rounds.repeated, run.members.losses) == (0, 0)


def test_what_is_usual_is_not_learnt_from_what_a_straggler_still_has_to_do(model):
    """Worker 0 is at four old leaves, while the longest share of the three others, two leaves, takes 0.4 s."""
    slow = [Fault("slow", 1, step, seconds=0.4) for step in range(2, 40)]
    loop, _ = model.loop(
        Fault("slow", 0, 1, seconds=1000.0),
        *slow,
        workers=1,
        most=4,
        start_seconds=0.0,
        wanted=lambda: 4 if loop.state.step else 1,
        patience=Patience(hang_seconds=3000.0, late_seconds=2.0),
    )
    for _ in range(40):
        loop.step()
    recent = loop._rounds._unit_seconds[GradientRequest]
    assert sorted(recent)[len(recent) // 2] == pytest.approx(0.2, rel=0.3)
