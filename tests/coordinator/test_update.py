"""The second half of a step, shared out over the workers: the bits that the coordinator makes alone, whatever happens."""

import itertools
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from fakes import Fault, leaf_rows, toy_dataset, toy_loop, toy_spec
from trees import blocks_of

from shardsgd.coordinator.training import make_problem
from shardsgd.errors import DivergedError, InterruptedJobError, LeafError, WorkersLostError
from shardsgd.model import problem as problem_module
from shardsgd.model.layout import BLOCK
from shardsgd.workers.exchange import GradientRequest, UpdateRequest

STEPS = 6

# Programs compiled for one test serve the others.
COMPUTERS = {}


@pytest.fixture(params=[16, 20], ids="blocks of {}".format)
def small_blocks(request, monkeypatch):
    """A toy network of seven or six blocks (in float64 five or four), whose updates are shared out where workers can."""
    monkeypatch.setattr(problem_module, "_SHARED_BLOCKS", 4)
    with blocks_of(request.param):
        yield request.param


def loop_over(spec, dataset, **options):
    loop, exchange = toy_loop(spec, dataset, **options)
    key = exchange.problem, len(exchange.problem.layout.blocks)
    exchange.computer = COMPUTERS.setdefault(key, exchange.computer)
    return loop, exchange


def without_times(record):
    return {name: value for name, value in asdict(record).items() if not name.endswith("_seconds")}


def outcome(loop, records):
    """All that must not depend on who updated: the bytes of the state, and what was reported."""
    state = loop.state
    flats = [flat.tobytes() for flat in (state.theta, *state.optimizer_state)]
    return flats, repr(state.noise), repr(state.progress), loop.regularizer(), [without_times(r) for r in records]


def trained(spec, dataset, steps=STEPS, **options):
    loop, exchange = loop_over(spec, dataset, **options)
    return outcome(loop, [loop.step() for _ in range(steps)]), exchange


def asked_to_update(exchange, step):
    return [
        (worker, request.start, request.stop)
        for worker, request in exchange.sent
        if request.step == step and isinstance(request, UpdateRequest)
    ]


SPECS = {
    "momentum, l2": {},
    "sgd": {"optimizer": {"kind": "sgd"}, "objective": {}},
    "l1 and l2": {"objective": {"l1": 1e-2, "l2": 1e-2}},
    "float64": {"batch": {"size": 30, "shards": 4, "precision": "float64"}},
    "five shards": {"batch": {"size": 29, "shards": 5}},
    "one shard": {"batch": {"size": 30, "shards": 1}},
    "replacement": {"batch": {"size": 30, "shards": 7, "sampling": "replacement"}},
}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", SPECS)
def test_any_number_of_workers_updates_to_the_same_bits_and_records(name):
    spec = toy_spec(**SPECS[name])
    dataset = toy_dataset(shards=spec.batch.shards)
    alone, exchange = trained(spec, dataset, workers=1)
    assert not any(asked_to_update(exchange, step) for step in range(STEPS))
    for workers in (1, 2, 3, 4, 5):
        assert trained(spec, dataset, workers=workers)[0] == alone
        for reverse in (False, True):
            shared, exchange = trained(spec, dataset, workers=workers, updates=True, reverse=reverse)
            assert shared == alone
            asked = min(workers, len(exchange.problem.layout.blocks))
            assert all(len(asked_to_update(exchange, step)) == asked for step in range(STEPS))


def test_a_network_of_real_blocks_with_nothing_made_smaller():
    dataset = toy_dataset(rows=24, shards=4)
    spec = toy_spec(model={"kind": "mlp", "hidden": [720, 720]}, batch={"size": 12, "shards": 4})
    layout = make_problem(spec, dataset).layout
    assert 8 * BLOCK < layout.length < 9 * BLOCK
    alone, _ = trained(spec, dataset, steps=2, workers=1)
    # Five workers, of which four have leaves.
    for workers in (2, 3, 5):
        shared, exchange = trained(spec, dataset, steps=2, workers=workers, updates=True)
        assert shared == alone
        assert len(asked_to_update(exchange, 1)) == workers


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("updates", [False, True])
def test_every_step_divides_by_its_own_rows(updates):
    """An epoch and more of linear regression by its formula: the epoch's last step has 13 rows, the others 30."""
    spec = toy_spec(
        model={"kind": "linear"},
        objective={"loss": "squared_error", "l1": 0.01, "l2": 0.1},
        optimizer={"kind": "sgd", "learning_rate": 0.05},
        batch={"size": 30, "shards": 4, "precision": "float64"},
    )
    # Wide enough for four blocks.
    dataset = toy_dataset(features=70, regression=True)
    loop, exchange = loop_over(spec, dataset, workers=3, updates=updates)
    views, rows = exchange.problem.layout.views, []
    for step in range(STEPS):
        before = {name: view.copy() for name, view in views(loop.state.theta).items()}
        weight, bias = before["layer0.weight"][:, 0], before["layer0.bias"]
        record, after = loop.step(), views(loop.state.theta)
        leaves = [leaf_rows(exchange.problem, dataset, shard, step) for shard in range(4)]
        x, y, w = (np.concatenate(arrays) for arrays in zip(*leaves, strict=True))
        rows.append(w.sum())
        errors = w * (x @ weight + bias - y)
        slope = 2 * x.T @ errors / w.sum() + 0.01 * np.sign(weight) + 0.1 * weight
        bias_slope = 2 * errors.sum() / w.sum()
        np.testing.assert_allclose(after["layer0.weight"][:, 0], weight - 0.05 * slope, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(after["layer0.bias"], bias - 0.05 * bias_slope, rtol=1e-11, atol=1e-13)
        assert record.gradient_norm == pytest.approx(np.hypot(np.linalg.norm(slope), bias_slope), rel=1e-11)
        expected = {"layer0.weight": np.linalg.norm(slope), "layer0.bias": abs(bias_slope)}
        assert record.layer_norms == pytest.approx(expected, rel=1e-11)
        penalty = 0.01 * np.abs(weight).sum() + 0.05 * weight @ weight
        assert record.loss == pytest.approx(np.sum(errors**2) / w.sum() + penalty, rel=1e-11)
    assert rows == [30, 30, 30, 13, 30, 30]
    assert bool(asked_to_update(exchange, 0)) == updates


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", SPECS)
def test_the_norms_of_the_arrays_make_up_the_gradients(name):
    spec = toy_spec(**SPECS[name])
    loop, exchange = loop_over(spec, toy_dataset(shards=spec.batch.shards), workers=2, updates=True)
    for _ in range(2):
        record = loop.step()
        assert list(record.layer_norms) == [entry.name for entry in exchange.problem.layout.entries]
        assert math.hypot(*record.layer_norms.values()) == pytest.approx(record.gradient_norm, rel=1e-12)


def test_a_small_network_is_updated_by_the_coordinator():
    loop, exchange = loop_over(toy_spec(), toy_dataset(), updates=True)
    loop.step()
    assert {type(request) for _, request in exchange.sent} == {GradientRequest}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["kill", "answer twice", "answer late"])
@pytest.mark.parametrize(("worker", "step"), list(itertools.product(range(3), (0, 3, STEPS - 1))))
def test_a_fault_while_updating_costs_no_bit(kind, worker, step):
    """A worker that is killed leaves its blocks half-written: they are written again, from what nobody wrote over."""
    fault = Fault(kind, worker, step, during=UpdateRequest)
    undisturbed, _ = trained(toy_spec(), toy_dataset(), workers=3)
    for reverse in (False, True):
        disturbed, exchange = trained(
            toy_spec(), toy_dataset(), workers=3, faults=[fault], updates=True, reverse=reverse
        )
        assert disturbed == undisturbed
        assert exchange.fired == {fault: 1}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["kill", "answer twice", "answer late"])
def test_a_fault_in_each_half_of_a_step_costs_no_bit(kind):
    """The sums of a worker that is gone are still where it left them."""
    faults = [Fault(kind, 1, 2, during=GradientRequest), Fault(kind, 2, 2, during=UpdateRequest)]
    faults += [Fault(kind, 0, 4, during=UpdateRequest)]
    undisturbed, _ = trained(toy_spec(), toy_dataset(), workers=1)
    disturbed, exchange = trained(toy_spec(), toy_dataset(), workers=4, faults=faults, updates=True)
    assert disturbed == undisturbed
    assert exchange.fired == dict.fromkeys(faults, 1)


@pytest.mark.usefixtures("small_blocks")
def test_all_workers_may_die_while_updating_but_one():
    faults = [Fault("kill", worker, 1, during=UpdateRequest) for worker in (0, 1, 3)]
    undisturbed, _ = trained(toy_spec(), toy_dataset(), workers=1)
    disturbed, exchange = trained(toy_spec(), toy_dataset(), workers=4, faults=faults, updates=True)
    assert disturbed == undisturbed
    assert exchange.fired == dict.fromkeys(faults, 1)


def test_a_death_while_updating_costs_only_the_blocks_the_worker_held(small_blocks):
    loop, exchange = loop_over(
        toy_spec(), toy_dataset(), workers=3, faults=[Fault("kill", 1, 1, during=UpdateRequest)], updates=True
    )
    for _ in range(3):
        loop.step()
    if small_blocks == 16:
        assert asked_to_update(exchange, 1) == [(0, 0, 3), (1, 3, 5), (2, 5, 7), (0, 3, 4), (2, 4, 5)]
        assert asked_to_update(exchange, 2) == [(0, 0, 4), (2, 4, 7)]
    else:
        assert asked_to_update(exchange, 1) == [(0, 0, 2), (1, 2, 4), (2, 4, 6), (0, 2, 3), (2, 3, 4)]
        assert asked_to_update(exchange, 2) == [(0, 0, 3), (2, 3, 6)]
    leaves = [request for _, request in exchange.sent if request.step == 1 and isinstance(request, GradientRequest)]
    assert len(leaves) == 3
    assert loop.state.recoveries == 1


@pytest.mark.usefixtures("small_blocks")
def test_with_no_worker_left_to_update_the_job_fails_and_keeps_its_state():
    faults = [Fault("kill", worker, 1, during=UpdateRequest) for worker in (0, 1)]
    one_step, _ = trained(toy_spec(), toy_dataset(), steps=1)
    loop, exchange = loop_over(toy_spec(), toy_dataset(), workers=2, faults=faults, updates=True)
    records, before = [loop.step()], loop.state
    with pytest.raises(WorkersLostError, match="killed"):
        loop.step()
    assert loop.state is before
    assert outcome(loop, records) == one_step
    assert exchange.fired == dict.fromkeys(faults, 1)


@pytest.mark.usefixtures("small_blocks")
def test_an_error_while_updating_names_worker_step_and_blocks_and_the_step_can_be_taken_again():
    faults = [Fault("raise", 0, 2, during=UpdateRequest, seconds=time) for time in (1, 2)]
    undisturbed, _ = trained(toy_spec(), toy_dataset())
    loop, exchange = loop_over(toy_spec(), toy_dataset(), workers=1, faults=faults, updates=True)
    records, before = [loop.step(), loop.step()], loop.state
    theta = before.theta.tobytes()
    what = r"worker 0 failed in step 2 on blocks \d+ to \d+ \(and so did worker 0\):\n.*ZeroDivisionError"
    with pytest.raises(LeafError, match=what):
        loop.step()
    assert loop.state is before
    assert loop.state.theta.tobytes() == theta
    records += [loop.step() for _ in range(2, STEPS)]
    assert outcome(loop, records) == undisturbed
    assert exchange.fired == dict.fromkeys(faults, 1)


@pytest.mark.usefixtures("small_blocks")
def test_an_interrupt_while_updating_keeps_the_state_and_the_step_can_be_taken_again():
    undisturbed, _ = trained(toy_spec(), toy_dataset())
    once = []

    def interrupted():
        _, last = exchange.sent[-1]
        if isinstance(last, UpdateRequest) and last.step == 3 and not once:
            once.append(last)
            return True
        return False

    loop, exchange = loop_over(toy_spec(), toy_dataset(), updates=True, interrupted=interrupted)
    records, before = [loop.step() for _ in range(3)], loop.state
    with pytest.raises(InterruptedJobError):
        loop.step()
    assert loop.state is before
    assert once
    records += [loop.step() for _ in range(3, STEPS)]
    assert outcome(loop, records) == undisturbed


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("learning_rate", "what"), [(1e30, "the loss is|the gradient's norm"), (3e38, "the update overflows")]
)
def test_divergence_is_the_same_whoever_updates(learning_rate, what):
    spec = toy_spec(optimizer={"kind": "sgd", "learning_rate": learning_rate}, objective={"loss": "squared_error"})
    found = []
    for workers, updates in itertools.product((1, 2, 3), (False, True)):
        loop, _ = loop_over(spec, toy_dataset(regression=True), workers=workers, updates=updates)
        with pytest.raises(DivergedError, match=what) as caught:  # noqa: PT012
            for _ in range(20):
                loop.step()
        found.append((str(caught.value), loop.state.step, loop.state.theta.tobytes()))
        assert np.isfinite(loop.state.theta).all()
    assert found == found[:1] * 6


@pytest.mark.usefixtures("small_blocks")
def test_a_run_goes_on_from_its_state_in_the_same_bits_whoever_updates():
    """The state of an odd number of steps lies in the exchange's second memory; a successor begins in its first."""
    undisturbed, _ = trained(toy_spec(), toy_dataset())
    loop, _ = loop_over(toy_spec(), toy_dataset(), workers=3, updates=True)
    records = [loop.step() for _ in range(3)]
    state = replace(loop.state, optimizer_state=tuple(slot.copy() for slot in loop.state.optimizer_state))
    resumed, _ = loop_over(toy_spec(), toy_dataset(), workers=2, updates=True, state=state)
    records += [resumed.step() for _ in range(3, STEPS)]
    assert outcome(resumed, records) == undisturbed
