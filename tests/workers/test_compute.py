"""What a worker computes, against the leaf program called by itself and the tree added up by hand."""

import numpy as np
import pytest
from fakes import ArrayRows, leaf_rows, toy_dataset, toy_spec
from hypothesis import given
from hypothesis import strategies as st
from trees import add_up, padding

from shardsgd.coordinator.training import make_problem
from shardsgd.model.leaf import leaf_program
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.state import Updater
from shardsgd.model.sums import LeafGradient
from shardsgd.model.tree import cover, subtree
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import GradientRequest, UpdateRequest

# Nodes of every kind: full trees of 8 and less, and a part of one.
SHARDS = 11
DATASET = toy_dataset(rows=64, shards=SHARDS)
PROBLEM = make_problem(toy_spec(batch={"size": 30, "shards": SHARDS}), DATASET)
LAYOUT = PROBLEM.layout


@pytest.fixture(scope="module")
def theta():
    flat = LAYOUT.zeros()
    flat[:] = PROBLEM.network.initialize(0, LAYOUT)
    return flat


@pytest.fixture(scope="module")
def computer():
    return LeafComputer(PROBLEM, ArrayRows(DATASET), worker=3)


@pytest.fixture(scope="module")
def leaves(theta):
    """(step, shard) → (loss, gradient) of every leaf of an epoch, its last step short."""
    program, parameters = leaf_program(PROBLEM), LAYOUT.views(theta)
    results = {}
    for step in range(PROBLEM.sampling.steps_per_epoch):
        for shard in range(SHARDS):
            loss, gradient = program(parameters, *leaf_rows(PROBLEM, DATASET, shard, step))
            arrays = tuple(np.array(gradient[entry.name]).ravel() for entry in LAYOUT.entries)
            results[step, shard] = float(loss), LeafGradient(arrays)
    return results


@st.composite
def requests(draw):
    start = draw(st.integers(0, SHARDS - 1))
    return GradientRequest(
        draw(st.integers(0, 2)), draw(st.integers(0, 9)), start, draw(st.integers(start + 1, SHARDS))
    )


def assert_right(reply, request, leaves):
    assert (reply.request, reply.worker) == (request, 3)
    nodes = cover(request.start, request.stop, SHARDS)
    assert tuple(reply.sums) == nodes
    assert set(reply.norms) == {node for top in nodes for node in subtree(top)}
    for node in nodes:
        total, norms = add_up(LAYOUT, lambda shard: leaves[request.step, shard][1], node)
        assert reply.sums[node].tobytes() == total.tobytes()
        assert {below: reply.norms[below] for below in subtree(node)} == norms
    assert reply.losses.tolist() == [leaves[request.step, shard][0] for shard in range(request.start, request.stop)]
    seconds = reply.seconds
    assert min(seconds.gather, seconds.leaf, seconds.reduce) >= 0
    assert seconds.total == seconds.gather + seconds.leaf + seconds.reduce > 0


@given(st.lists(st.tuples(requests(), st.booleans(), st.integers(0, SHARDS)), max_size=6))
def test_sums_norms_and_losses_are_those_of_the_leaves_whatever_came_before(computer, theta, leaves, asked):
    """In the computer's own memory or another's, with rows gathered ahead or not."""
    own, shared = computer.own_parameters(theta), computer.shared_parameters(theta)
    for request, elsewhere, ahead in asked:
        for shard in range(ahead):
            computer.gather_ahead(request.step, shard)
        if not elsewhere:
            assert_right(computer.gradients(request, own), request, leaves)
            continue
        memory = {node: LAYOUT.zeros() for node in cover(request.start, request.stop, SHARDS)}
        reply = computer.gradients(request, shared, memory.__getitem__)
        assert_right(reply, request, leaves)
        assert all(reply.sums[node] is memory[node] for node in memory)


def test_memory_of_an_earlier_step_may_be_written_over(computer, theta, leaves):
    """As in shared memory, where a node's sum lies where another step's lay before; the padding stays zero."""
    memory = {node: LAYOUT.zeros() for node in cover(1, 10, SHARDS)}
    for step in (0, 1, 2, 0):
        request = GradientRequest(step, 0, 1, 10)
        assert_right(computer.gradients(request, computer.own_parameters(theta), memory.__getitem__), request, leaves)
    assert not any(total[padding(LAYOUT)].any() for total in memory.values())


def test_shared_parameters_are_read_when_leaves_are_computed(computer, theta, leaves):
    memory = LAYOUT.zeros()
    parameters, request = computer.shared_parameters(memory), GradientRequest(1, 0, 0, SHARDS)
    at_zero = computer.gradients(request, parameters).losses.tolist()
    memory[:] = theta
    assert_right(computer.gradients(request, parameters), request, leaves)
    memory[:] = 0
    assert computer.gradients(request, parameters).losses.tolist() == at_zero


def test_own_parameters_are_not_changed_by_what_becomes_of_theirs(computer, theta, leaves):
    memory = theta.copy()
    memory.flags.writeable = False
    parameters = computer.own_parameters(memory)
    memory.flags.writeable = True
    memory[:] = 0
    request = GradientRequest(2, 0, 0, SHARDS)
    assert_right(computer.gradients(request, parameters), request, leaves)


def test_an_update_is_the_updaters(computer, theta, leaves):
    total, _ = add_up(LAYOUT, lambda shard: leaves[0, shard][1], (0, SHARDS))
    updater = Updater(PROBLEM)
    before = StateBuffers(theta, updater.buffers().slots)
    after, expected = updater.buffers(), updater.buffers()
    request = UpdateRequest(0, 5, 0, updater.blocks, 30, 0.1, (((0, SHARDS), 3),))
    reply = computer.updates(request, {(0, SHARDS): total}, before, after)
    made = updater.update(range(updater.blocks), {(0, SHARDS): total}, 30, 0.1, before, expected)
    assert (reply.request, reply.worker) == (request, 3)
    assert reply.seconds >= 0
    assert after.theta.tobytes() == expected.theta.tobytes() != theta.tobytes()
    assert [figures.tobytes() for figures in reply.made] == [figures.tobytes() for figures in made]


def test_a_worker_compiles_its_leaf_program_before_the_first_step_and_never_again():
    """Neither for θ in shared memory nor for its own copy of one."""
    computer, request = LeafComputer(PROBLEM, ArrayRows(DATASET)), GradientRequest(0, 0, 0, 1)
    computer.warm_up()
    for parameters in (computer.shared_parameters, computer.own_parameters):
        computer.gradients(request, parameters(LAYOUT.zeros()))
        assert computer.compiled_programs() == 1
