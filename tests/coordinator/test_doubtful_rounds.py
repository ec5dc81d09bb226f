"""Rounds over the fake exchange in which an answer is wrong, a computation fails, or all is computed twice."""

import numpy as np
import pytest
from fakes import Fault, toy_dataset, toy_loop, toy_spec
from small_model import DURING, STEPS, Run, before_each_receive, small_model

from shardsgd.coordinator.plan import Patience
from shardsgd.errors import DivergedError, JobError, LeafError
from shardsgd.workers.exchange import GradientRequest, UpdateRequest

PATIENCE = Patience(hang_seconds=2.0, late_seconds=0.05, first_seconds=4.0)


@pytest.fixture(scope="module")
def model():
    with small_model() as one:
        yield one


@pytest.mark.parametrize("kind", ["nan", "corrupt"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_wrong_gradient_is_found_and_who_gave_it_is_replaced(model, kind, workers):
    run = model.run(Fault(kind, 0, 1), workers=workers, start_seconds=0.0)
    run.ends_as(model)
    share = {1: 4, 2: 2, 3: 2}[workers]
    assert run.rounds.repeated == share
    assert run.members.losses == 1
    assert run.exchange.started == [0]
    (lost,) = run.incidents("lost")
    assert (lost.step, lost.worker) == (1, 0)
    assert lost.reason == f"its answer for leaves 0 to {share - 1} was not confirmed"


def test_an_answer_that_arrives_twice_does_not_confirm_itself(model):
    loop, exchange = model.loop(Fault("nan", 0, 1), workers=1, start_seconds=0.0)
    receive = exchange.receive
    exchange.receive = lambda timeout_s: [event for event in receive(timeout_s) for _ in range(2)]
    run = Run(loop, exchange)
    run.ends_as(model)
    assert run.rounds.dropped > 0


def test_who_fails_where_others_do_not_is_replaced(model):
    run = model.run(Fault("raise", 1, 1, UpdateRequest), workers=2, start_seconds=0.0)
    run.ends_as(model)
    assert run.exchange.started == [1]
    (lost,) = run.incidents("lost")
    assert lost.worker == 1
    assert "ZeroDivisionError" in lost.reason


@pytest.mark.parametrize("during", DURING)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_every_worker_repeats_fails_the_job_and_keeps_the_state(model, during, workers):
    step = 1 + (during == "evaluation")
    faults = [Fault("raise", worker, step, DURING[during], seconds=n) for worker in range(workers) for n in range(3)]
    run = model.run(*faults, workers=workers, start_seconds=0.0)
    run.ends_as(model, LeafError)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_true_divergence_is_confirmed_and_nobody_is_blamed(workers):
    spec = toy_spec(optimizer={"kind": "sgd", "learning_rate": 1e30}, objective={"loss": "squared_error"})
    loop, exchange = toy_loop(spec, toy_dataset(regression=True), workers=workers)
    with pytest.raises(DivergedError):  # noqa: PT012
        for _ in range(20):
            loop.step()
    assert np.isfinite(loop.state.theta).all()
    assert loop._rounds.members.losses == 0
    assert exchange.alive == list(range(workers))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_with_verify_1_everything_is_computed_twice_and_no_bit_changes(model, workers):
    run = model.run(workers=workers, verify=1.0)
    run.ends_as(model)
    assert run.rounds.repeated == run.rounds.leaves == 4 * STEPS
    assert (run.rounds.dropped, run.members.losses) == (0, 0)
    by_leaves = {}
    for worker, request in run.exchange.sent:
        if isinstance(request, GradientRequest):
            by_leaves.setdefault((request.step, request.start, request.stop), set()).add(worker)
    assert {len(who) for who in by_leaves.values()} == {min(workers, 2)}


def test_with_a_share_to_verify_about_that_share_is_computed_twice(model):
    run = model.run(workers=2, verify=0.25, steps=40)
    run.ends_as(model)
    assert 0.15 < run.rounds.repeated / run.rounds.leaves < 0.35


def lies(worker, steps=range(STEPS)):
    """A machine that makes the same mistake every time."""
    return [Fault("corrupt", worker, step, seconds=n) for step in steps for n in range(6)]


@pytest.mark.parametrize("liar", range(3))
def test_of_three_workers_one_that_always_lies_is_found(model, liar):
    run = model.run(*lies(liar), workers=3, verify=1.0)
    run.ends_as(model)
    assert run.exchange.alive == [worker for worker in range(3) if worker != liar]


@pytest.mark.parametrize("liar", range(2))
def test_of_two_workers_one_that_always_lies_does_not_win(model, liar):
    run = model.run(*lies(liar), workers=2, verify=1.0, start_seconds=0.0)
    run.ends_as(model, JobError)
    assert "all give other gradients" in str(run.error)


def test_one_that_always_lies_is_found_by_the_size_of_its_lies(model):
    run = model.run(*lies(0, steps=[1]), workers=2)
    run.ends_as(model)
    assert run.exchange.alive == [1]


def test_a_leap_is_noticed_in_a_step_that_follows_a_doubtful_one(model):
    run = model.run(Fault("nan", 0, 0), Fault("corrupt", 0, 1), workers=1, start_seconds=0.0)
    run.ends_as(model)
    assert run.members.losses == 2


def test_a_short_step_at_the_end_of_an_epoch_makes_no_whole_step_doubtful():
    """One row's gradient, and then that of 256 rows that all pull the same way."""
    spec = toy_spec(
        model={"kind": "linear"},
        objective={"loss": "squared_error"},
        optimizer={"kind": "sgd", "learning_rate": 1e-6},
        batch={"size": 256, "shards": 4},
    )
    dataset = toy_dataset(rows=257, features=2, regression=True)
    for _, y in dataset.shards:
        np.add(y, 1000, out=y)
    loop, _ = toy_loop(spec, dataset, workers=1)
    for _ in range(6):
        loop.step()
    assert loop._rounds.repeated == 0


class TestDiedInDoubt:
    """Worker 1 gives a wrong answer in step 1, and dies before worker 0, which takes half a second, has computed the same."""

    def run(self, model, *faults, start_seconds):
        slow = [Fault("slow", 0, 1, seconds=seconds) for seconds in (0.001, 0.5)]
        loop, exchange = model.loop(
            Fault("nan", 1, 1), *slow, *faults, workers=2, start_seconds=start_seconds, patience=PATIENCE
        )
        exchange.most_receives = 1000

        def die(number):
            if exchange.fired[slow[1]] and not exchange.started and 1 in exchange.alive:
                exchange.perish(1)
            if loop.state.step >= 2 and exchange.started and 1 not in exchange.alive:
                exchange.time.now += 0.5  # for the replacement to join

        before_each_receive(exchange, die)
        run = Run(loop, exchange, steps=6)
        run.ends_as(model)
        return run

    @pytest.mark.parametrize("start_seconds", [0.1, 1.0])
    def test_whoever_takes_its_number_is_not_blamed(self, model, start_seconds):
        run = self.run(model, start_seconds=start_seconds)
        assert run.exchange.started == [1]
        assert run.members.losses == 1

    @pytest.mark.parametrize("start_seconds", [0.1, 1.0])
    def test_whoever_takes_its_number_and_hangs_is_killed(self, model, start_seconds):
        hang = Fault("hang", 1, 5, UpdateRequest)
        run = self.run(model, hang, start_seconds=start_seconds)
        assert run.exchange.fired[hang] == 1
        assert [each.reason[:9] for each in run.incidents("lost")][-1] == "no answer"
