"""Rounds over the fake exchange that wait: for replacements, for more workers, or because this process was stopped."""

import pytest
from fakes import Fault
from small_model import DURING, LONGEST_RUN, Run, before_each_receive, pass_time, pause_once, small_model

from shardsgd.coordinator.plan import Patience
from shardsgd.coordinator.staffing import Limits
from shardsgd.errors import InterruptedJobError, WorkersLostError

PATIENCE = Patience(hang_seconds=2.0, late_seconds=0.05, first_seconds=4.0)


@pytest.fixture(scope="module")
def model():
    with small_model() as one:
        yield one


def test_with_no_worker_to_be_had_the_job_fails_after_it_has_waited(model):
    run = model.run(Fault("kill", 0, 1), workers=1, wait_seconds=20.0)
    run.ends_as(model, WorkersLostError)
    assert run.exchange.time.now == pytest.approx(20.0, abs=0.1)
    assert "workers.wait_seconds = 20" in str(run.error)
    assert "no worker can be had" in str(run.error)
    assert 5 <= len(run.exchange.started) <= 8, "it was tried after 0.25 s, 0.5 s, ..."


@pytest.mark.parametrize(("start_seconds", "fails"), [(19.8, False), (20.2, True)])
def test_a_worker_that_joins_in_time_saves_the_job(model, start_seconds, fails):
    run = model.run(Fault("kill", 0, 1), workers=1, start_seconds=start_seconds, wait_seconds=20.0)
    run.ends_as(model, WorkersLostError if fails else None)


def test_a_start_that_never_ends_is_given_up_and_tried_again(model):
    limits = Limits(most=1, wait_seconds=60.0, start_seconds=5.0)
    loop, exchange = model.loop(Fault("kill", 0, 1), workers=1, start_seconds=1000.0, limits=limits)

    def quicker(number):
        if exchange.started == [0, 0]:
            exchange.start_seconds = 1.0

    before_each_receive(exchange, quicker)
    run = Run(loop, exchange)
    run.ends_as(model)
    assert exchange.started == [0, 0, 0]
    assert [(each.step, each.reason) for each in run.incidents("start failed")] == [(1, "not ready after 5 s")] * 2


def test_a_replacement_that_dies_while_it_starts_is_replaced(model):
    loop, exchange = model.loop(Fault("kill", 1, 1), Fault("start", 1, 0), workers=2, start_seconds=0.0)
    pass_time(exchange, 0.05)
    run = Run(loop, exchange, steps=10)
    run.ends_as(model)
    assert exchange.started == [1, 1]
    assert exchange.alive == [0, 1]
    assert run.members.losses == 1


def test_no_step_begins_with_fewer_workers_than_the_least(model):
    limits = Limits(least=2, most=2, wait_seconds=60.0)
    run = model.run(Fault("kill", 1, 1), workers=2, start_seconds=3.0, limits=limits)
    run.ends_as(model)
    assert run.asked(step=1) == [(0, 0, 2), (1, 2, 4), (0, 2, 4)], "what has begun is completed"
    assert run.asked(step=2) == [(0, 0, 2), (1, 2, 4)]
    assert run.exchange.time.now >= 3.0


def test_the_number_of_workers_may_change_while_the_run_goes_on(model):
    walk = [1, 4, 2, 3, 1]
    loop, exchange = model.loop(
        workers=1, most=4, start_seconds=0.0, wanted=lambda: walk[min(loop.state.step // 8, len(walk) - 1)]
    )
    run = Run(loop, exchange, steps=LONGEST_RUN)
    run.ends_as(model)
    sizes = [len({worker for worker, *_ in run.asked(step=step)}) for step in range(LONGEST_RUN)]
    # They join while a round goes on, and are asked in the next.
    assert sizes[7::8] == walk
    assert (run.rounds.repeated, run.rounds.dropped, run.members.losses) == (0, 0, 0)
    assert exchange.started == [1, 2, 3, 2]
    assert (len(run.incidents("joined")), len(run.incidents("left"))) == (4, 4)


def test_a_busy_worker_that_is_one_too_many_answers_before_it_goes(model):
    slow = Fault("slow", 1, 1, seconds=0.5)
    loop, exchange = model.loop(slow, workers=2, patience=PATIENCE, wanted=lambda: 1 if loop.state.step > 1 else 2)
    pass_time(exchange, 0.02)
    run = Run(loop, exchange, steps=12)
    run.ends_as(model)
    assert exchange.alive == [0]
    assert (run.rounds.dropped, run.members.losses) == (1, 0)


def test_the_user_can_stop_a_job_that_waits_for_workers(model):
    loop, exchange = model.loop(
        Fault("kill", 0, 1), workers=1, start_seconds=1000.0, interrupted=lambda: exchange.time.now > 5.0
    )
    loop.step()
    before = loop.state
    with pytest.raises(InterruptedJobError):
        loop.step()
    assert loop.state is before


PAUSES = {"while both compute": [0, 1], "while one computes": [1]}


@pytest.mark.parametrize("during", DURING)
@pytest.mark.parametrize("slow", PAUSES.values(), ids=PAUSES)
def test_a_pause_of_this_process_costs_no_worker(model, during, slow):
    """Ctrl-Z for an hour, while workers compute."""
    faults = [Fault("slow", worker, 1 + (during == "evaluation"), DURING[during], seconds=0.2) for worker in slow]
    loop, exchange = model.loop(*faults, workers=2, start_seconds=0.0, patience=PATIENCE)
    pause_once(exchange, lambda: all(exchange.fired[fault] for fault in faults))
    run = Run(loop, exchange)
    run.ends_as(model)
    assert exchange.time.now > 3600
    assert run.members.losses == 0
    assert run.incidents("lost") == []


def test_a_pause_in_which_one_has_answered_costs_no_other_worker(model):
    faults = [Fault("slow", worker, 1, seconds=0.2) for worker in range(3)]
    loop, exchange = model.loop(*faults, workers=3, start_seconds=0.0, patience=PATIENCE)
    pause_once(exchange, lambda: all(exchange.fired[fault] for fault in faults), answering=[2])
    run = Run(loop, exchange)
    run.ends_as(model)
    assert run.members.losses == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pause_while_a_replacement_starts_neither_fails_the_job_nor_costs_the_replacement(model, workers):
    limits = Limits(least=workers, most=workers, wait_seconds=60.0, start_seconds=120.0)
    loop, exchange = model.loop(
        Fault("kill", 0, 1), workers=workers, start_seconds=2.0, limits=limits, patience=PATIENCE
    )
    pause_once(exchange, lambda: bool(exchange.started))
    run = Run(loop, exchange)
    run.ends_as(model)
    assert exchange.started == [0]
    assert run.members.losses == 1


def test_what_is_usual_is_not_learnt_from_a_pause(model):
    """An hour in the first round does not make ten hours a time to wait."""
    faults = [Fault("slow", 0, 0, seconds=0.2), Fault("hang", 0, 1)]
    loop, exchange = model.loop(*faults, workers=1, start_seconds=0.0, patience=PATIENCE)
    exchange.most_receives = 1000
    pause_once(exchange, lambda: bool(exchange.fired[faults[0]]))
    Run(loop, exchange).ends_as(model)
