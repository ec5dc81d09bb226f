"""The step loop, one step at a time, without Ray, sockets or sleeping."""

import itertools
import logging
import math
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest
from fakes import Fault, toy_dataset, toy_loop, toy_spec
from trees import blocks_of

from shardsgd.coordinator.training import make_problem
from shardsgd.errors import DivergedError, InterruptedJobError, LeafError, WorkersLostError
from shardsgd.model import problem as problem_module
from shardsgd.workers.exchange import GradientRequest, Gradients, LeafSeconds, UpdateRequest, WorkerLost

STEPS = 6


@contextmanager
def caught_compilations():
    """Names of the programs that jax compiles within a block."""
    compiled = []

    class Handler(logging.Handler):
        def emit(self, record):
            if "Compiling" in record.getMessage():
                compiled.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("jax")
    logger.addHandler(handler)
    yield compiled
    logger.removeHandler(handler)


def trained_bytes(spec, dataset, **options):
    loop, exchange = toy_loop(spec, dataset, **options)
    for _ in range(STEPS):
        loop.step()
    state = loop.state
    return (state.theta.tobytes(), repr(state.noise), repr(state.progress)), exchange


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
@pytest.mark.parametrize(("rows", "size", "shards"), [(103, 30, 4), (103, 29, 5), (16, 16, 8), (64, 9, 7), (50, 50, 1)])
def test_any_number_of_workers_gives_the_same_bits(sampling, rows, size, shards):
    dataset = toy_dataset(rows=rows, shards=shards)
    spec = toy_spec(batch={"size": size, "shards": shards, "sampling": sampling})
    alone, _ = trained_bytes(spec, dataset, workers=1)
    for workers in (2, 3, 4, 7):
        assert trained_bytes(spec, dataset, workers=workers)[0] == alone
    assert trained_bytes(spec, dataset, workers=3, reverse=True)[0] == alone


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_precisions_keep_the_bits_too_and_set_the_dtype(precision):
    dataset, spec = toy_dataset(), toy_spec(batch={"size": 30, "shards": 4, "precision": precision})
    alone, _ = trained_bytes(spec, dataset, workers=1)
    assert trained_bytes(spec, dataset, workers=3)[0] == alone
    assert make_problem(spec, dataset).layout.dtype == (np.float64 if precision == "float64" else np.float32)


def test_the_seed_and_the_shards_do_change_bits():
    base, _ = trained_bytes(toy_spec(), toy_dataset())
    assert trained_bytes(toy_spec(seed=1), toy_dataset())[0] != base
    other = toy_spec(batch={"size": 30, "shards": 2})
    assert trained_bytes(other, toy_dataset(shards=2))[0] != base


@pytest.mark.parametrize("kind", ["kill", "answer twice", "answer late"])
@pytest.mark.parametrize(("worker", "step"), list(itertools.product(range(3), (0, 3, STEPS - 1))))
def test_a_fault_costs_no_bit(kind, worker, step):
    fault = Fault(kind, worker, step)
    undisturbed, _ = trained_bytes(toy_spec(), toy_dataset(), workers=3)
    disturbed, exchange = trained_bytes(toy_spec(), toy_dataset(), workers=3, faults=[fault])
    assert disturbed == undisturbed
    assert exchange.fired == {fault: 1}


def test_a_death_costs_only_the_leaves_the_worker_held():
    _, exchange = trained_bytes(toy_spec(), toy_dataset(), workers=4, faults=[Fault("kill", 1, 2)])
    asked = [(worker, request.start, request.stop) for worker, request in exchange.sent if request.step == 2]
    assert asked == [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 4), (0, 1, 2)]


def test_all_workers_may_die_but_one():
    faults = [Fault("kill", 0, 1), Fault("kill", 1, 1), Fault("kill", 3, 4)]
    undisturbed, _ = trained_bytes(toy_spec(), toy_dataset(), workers=1)
    disturbed, exchange = trained_bytes(toy_spec(), toy_dataset(), workers=4, faults=faults)
    assert disturbed == undisturbed
    assert exchange.fired.total() == 3


def test_with_no_worker_left_the_job_fails_and_keeps_its_state():
    loop, _ = toy_loop(toy_spec(), toy_dataset(), workers=2, faults=[Fault("kill", 0, 1), Fault("kill", 1, 1)])
    loop.step()
    before = loop.state
    with pytest.raises(WorkersLostError, match="killed"):
        loop.step()
    assert loop.state is before


def test_an_error_of_a_leaf_that_another_worker_repeats_names_workers_step_and_leaves():
    faults = [Fault("raise", 1, 0), Fault("raise", 0, 0), Fault("raise", 0, 0, seconds=2)]
    loop, exchange = toy_loop(toy_spec(), toy_dataset(), workers=2, faults=faults)
    what = r"worker [01] failed in step 0 on leaves (0 to 1|2 to 3) \(and so did worker [01]\):\n.*ZeroDivisionError"
    with pytest.raises(LeafError, match=what):
        loop.step()
    assert exchange.fired.total() == 3


def test_an_error_that_no_other_worker_repeats_costs_the_worker_but_no_bit():
    undisturbed, _ = trained_bytes(toy_spec(), toy_dataset(), workers=3)
    disturbed, exchange = trained_bytes(toy_spec(), toy_dataset(), workers=3, faults=[Fault("raise", 1, 2)])
    assert disturbed == undisturbed
    assert list(exchange.workers) == [0, 2]


def test_an_interrupt_keeps_the_state_between_steps():
    flag = False
    loop, _ = toy_loop(toy_spec(), toy_dataset(), interrupted=lambda: flag)
    loop.step()
    before, flag = loop.state, True
    with pytest.raises(InterruptedJobError):
        loop.step()
    assert loop.state is before


def test_divergence_names_step_and_rate_and_keeps_the_last_finite_parameters():
    spec = toy_spec(optimizer={"kind": "sgd", "learning_rate": 1e30}, objective={"loss": "squared_error"})
    loop, _ = toy_loop(spec, toy_dataset(regression=True))
    with pytest.raises(DivergedError, match=r"diverged in step \d+ at learning rate 1e\+30"):  # noqa: PT012
        for _ in range(20):
            loop.step()
    assert np.isfinite(loop.state.theta).all()


def test_records_say_what_the_step_did():
    loop, _ = toy_loop(toy_spec(schedule={"kind": "step", "factor": 0.5, "every": 2}), toy_dataset())
    records = [loop.step() for _ in range(5)]
    assert [record.step for record in records] == [0, 1, 2, 3, 4]
    assert [record.epoch for record in records] == [0, 0, 0, 0, 1]
    assert [record.learning_rate for record in records] == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert all(record.step_seconds > 0 and record.noise_trace > 0 and record.gradient_norm > 0 for record in records)
    assert all(record.noise_norm_squared < record.gradient_norm**2 for record in records)
    assert all(record.gain is None for record in records)
    interval = loop.state.noise.noise_scale_interval
    assert (records[-1].noise_scale_low, records[-1].noise_scale_high) == interval
    assert interval[0] < (records[-1].noise_scale or math.inf)
    assert records[-1].loss < records[0].loss


@pytest.fixture
def shared_updates(monkeypatch):
    """Toy networks whose updates are shared out where workers can."""
    monkeypatch.setattr(problem_module, "_SHARED_BLOCKS", 2)
    with blocks_of(16):
        yield


def record_times(record):
    return {name: value for name, value in asdict(record).items() if name.endswith("_seconds")}


@pytest.mark.usefixtures("shared_updates")
@pytest.mark.parametrize("updates", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_times_of_a_record_add_up_by_a_real_clock(workers, updates):
    """Workers of the fake take turns, so that each idles while another works."""
    loop, _ = toy_loop(toy_spec(), toy_dataset(), workers=workers, updates=updates, clock=time.perf_counter)
    for _ in range(STEPS):
        before = time.perf_counter()
        times = record_times(loop.step())
        assert 0 < times["step_seconds"] <= time.perf_counter() - before
        assert min(times.values()) >= 0
        assert times["leaf_seconds"] > 0
        assert times["update_seconds"] > 0
        parts = ("gather_seconds", "leaf_seconds", "reduce_seconds", "exchange_seconds", "update_seconds")
        assert sum(times[part] for part in parts) == pytest.approx(times["step_seconds"], abs=1e-6)
        assert times["step_seconds"] > times["idle_seconds"] >= (1 - 1 / workers) * times["step_seconds"] - 1e-6


def with_times(exchange, leaf_seconds, update_seconds):
    """Has answers of each worker say that they took so long."""
    receive = exchange.receive

    def timed(timeout_s):
        return [
            event
            if isinstance(event, WorkerLost)
            else replace(
                event, seconds=(leaf_seconds if isinstance(event, Gradients) else update_seconds)[event.worker]
            )
            for event in receive(timeout_s)
        ]

    exchange.receive = timed


LEAF_SECONDS = {0: LeafSeconds(0.125, 0.25, 0.0625), 1: LeafSeconds(0.0625, 0.5, 0.125)}
BUSIER = {"gather_seconds": 0.0625, "leaf_seconds": 0.5, "reduce_seconds": 0.125, "exchange_seconds": 1 - 0.6875}


@pytest.mark.usefixtures("shared_updates")
@pytest.mark.parametrize("reverse", [False, True])
def test_the_times_of_a_record_are_the_busiest_workers(reverse):
    """The clock says one second for the round, one for the update."""
    whole = {"step_seconds": 2.0, "update_seconds": 1.0}
    loop, exchange = toy_loop(toy_spec(), toy_dataset(), reverse=reverse)
    with_times(exchange, LEAF_SECONDS, {})
    assert record_times(loop.step()) == whole | BUSIER | {"idle_seconds": 2 - (0.4375 + 0.6875) / 2}

    loop, exchange = toy_loop(toy_spec(), toy_dataset(), reverse=reverse, updates=True)
    with_times(exchange, LEAF_SECONDS, {0: 0.25, 1: 0.5})
    assert record_times(loop.step()) == whole | BUSIER | {"idle_seconds": 2 - (0.6875 + 1.1875) / 2}


@pytest.mark.usefixtures("shared_updates")
def test_a_worker_that_stood_in_for_another_was_busy_with_both():
    faults = [Fault("kill", 0, 0), Fault("kill", 1, 1, during=UpdateRequest)]
    loop, exchange = toy_loop(toy_spec(), toy_dataset(), workers=3, faults=faults, updates=True)
    sixteenth = LeafSeconds(0.0625, 0.0625, 0.0625)
    with_times(exchange, {1: sixteenth, 2: sixteenth}, {1: 0.0625, 2: 0.125})
    # Worker 0's two leaves went to the others, one each.
    expected = {"gather_seconds": 0.125, "leaf_seconds": 0.125, "reduce_seconds": 0.125, "exchange_seconds": 0.625}
    expected |= {"step_seconds": 2.0, "update_seconds": 1.0, "idle_seconds": 2 - 0.375 - (0.0625 + 0.125) / 2}
    assert record_times(loop.step()) == expected
    # Worker 1 answered with its leaves; its blocks were updated by worker 2, beside its own.
    both = [request for worker, request in exchange.sent if worker == 2 and isinstance(request, GradientRequest)]
    assert len(both) == 2
    record = loop.step()
    assert record.idle_seconds == 2 - 0.1875 - (0 + 2 * 0.125) / 2


def test_an_epoch_closes_once_with_the_held_out_rows_evaluated():
    loop, _ = toy_loop(toy_spec(), toy_dataset())
    for _ in range(4):
        assert not loop.epoch_is_complete
        loop.step()
    assert loop.epoch_is_complete
    record = loop.close_epoch()
    assert (record.step, record.epoch) == (4, 1)
    assert 0 <= record.accuracy <= 1
    assert not loop.epoch_is_complete


def test_evaluation_equals_numpy_and_does_not_depend_on_the_workers():
    dataset = toy_dataset(rows=1000, regression=True, validation=300)
    spec = toy_spec(model={"kind": "linear"}, objective={"loss": "squared_error"}, batch={"precision": "float64"})
    dataset_4 = toy_dataset(rows=1000, regression=True, validation=300, shards=8)
    loop, _ = toy_loop(spec, dataset_4, workers=3)
    views = make_problem(spec, dataset_4).layout.views(loop.state.theta)
    x, y = dataset.validation
    expected = np.mean((x @ views["layer0.weight"][:, 0] + views["layer0.bias"] - y) ** 2)
    loss, accuracy = loop.evaluate("validation")
    assert loss == pytest.approx(expected, rel=1e-12)
    assert accuracy is None
    assert toy_loop(spec, dataset_4, workers=1)[0].evaluate("train") == loop.evaluate("train")


def test_finite_but_huge_losses_are_no_crash():
    spec = toy_spec(
        model={"kind": "linear"},
        objective={"loss": "squared_error"},
        batch={"size": 30, "shards": 4, "precision": "float64"},
    )
    dataset = toy_dataset(regression=True)
    # Each leaf's loss sum is below float64's largest number, their sum is not.
    for _, y in dataset.shards:
        np.multiply(y, 1.7e153, out=y)
    with pytest.raises(DivergedError, match="the loss is inf"):
        toy_loop(spec, dataset)[0].step()


def test_losses_of_workers_are_counted_only_when_survived_and_remembered():
    faults = [Fault("kill", 0, 1), Fault("kill", 1, 3), Fault("kill", 2, 3)]
    loop, _ = toy_loop(toy_spec(), toy_dataset(), workers=3, faults=faults)
    for _ in range(3):
        loop.step()
    assert loop.state.recoveries == 1
    with pytest.raises(WorkersLostError):
        loop.step()
    assert loop.state.recoveries == 1


def test_no_program_compiles_after_its_first_call():
    loop, exchange = toy_loop(toy_spec(), toy_dataset(), workers=3)
    loop.step()
    with jax.log_compiles(), caught_compilations() as compiled:
        for _ in range(5):
            loop.step()
    assert compiled == []
    assert exchange.computer.compiled_programs() == 1
    loop.evaluate("validation")
    loop.evaluate("train")
    assert exchange.computer.compiled_programs() == 2
