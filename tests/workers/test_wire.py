"""Requests and answers as bytes: everything that is said arrives, and nothing is longer than announced."""

import socket
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import blocks_of

from shardsgd.model.networks import Network
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling
from shardsgd.model.state import BlockUpdates
from shardsgd.model.tree import above, cover, subtree
from shardsgd.workers import wire
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    Distances,
    EvaluationRequest,
    Evaluations,
    GradientRequest,
    Gradients,
    LeafSeconds,
    RowDistancesRequest,
    UpdateRequest,
    Updates,
)

numbers = st.integers(0, 2**63 - 1)
floats = st.floats(allow_nan=True, allow_infinity=True)
LONGEST_TRACEBACK = 32_000


def problem(shards, blocks):
    """One with so many leaves and blocks."""
    with blocks_of(16):
        made = Problem(
            Network(16 * (blocks - 1), (), 1, "tanh"),
            "squared_error",
            Sampling(0, shards, shards, shards, "shuffle"),
            "float32",
            0,
        )
        assert len(made.layout.blocks) == blocks
    return made


@st.composite
def ranges(draw, units):
    start = draw(st.integers(0, units - 1))
    return start, draw(st.integers(start + 1, units))


@st.composite
def holders(draw, shards):
    """Nodes that cover all leaves, each with a worker: those of any share-out, in any order."""
    cuts = sorted(draw(st.lists(st.integers(0, shards), max_size=shards)))
    nodes = [node for ends in zip([0, *cuts], [*cuts, shards], strict=True) for node in cover(*ends, shards)]
    return tuple((node, draw(st.integers(0, 200))) for node in draw(st.permutations(nodes)))


@st.composite
def requests(draw, shards, blocks, chunks):
    step, version = draw(numbers), draw(numbers)
    kinds = [GradientRequest, EvaluationRequest, UpdateRequest, RowDistancesRequest, BatchDistancesRequest]
    kind = draw(st.sampled_from(kinds))
    if kind is GradientRequest:
        return kind(step, version, *draw(ranges(shards)))
    if kind is EvaluationRequest:
        return kind(step, version, *draw(ranges(chunks)), draw(st.sampled_from(["train", "validation"])))
    if kind is RowDistancesRequest:
        return kind(step, version, *draw(ranges(shards)), draw(numbers))
    if kind is BatchDistancesRequest:
        return kind(step, version, *draw(ranges(chunks)), draw(numbers), draw(numbers), draw(st.booleans()))
    rate = draw(st.floats(0, allow_infinity=False))
    return kind(step, version, *draw(ranges(blocks)), draw(numbers), rate, draw(holders(shards)))


def answer(request, shards, draw, pieces=None):
    """An answer to a request, its numbers as `draw` says; parts of arrays are as many as blocks unless it says otherwise."""
    units = request.stop - request.start

    def array(*shape):
        return np.array([draw() for _ in range(int(np.prod(shape)))], np.float64).reshape(shape)

    if isinstance(request, EvaluationRequest):
        return Evaluations(request, 7, array(units), array(units))
    if isinstance(request, RowDistancesRequest | BatchDistancesRequest):
        # A linear model's weights and bias.
        return Distances(request, 7, array(units, 2))
    if isinstance(request, UpdateRequest):
        nodes = above([node for node, _ in request.holders], shards)
        # A block may hold parts of several arrays, or of none.
        made = BlockUpdates(
            array(len(nodes), units), array(units if pieces is None else pieces), array(units), array(units)
        )
        return Updates(request, 7, made, draw())
    tops = cover(request.start, request.stop, shards)
    # In the order in which a worker comes by them: children before their sum.
    norms = {node: draw() for top in tops for node in reversed(list(subtree(top)))}
    return Gradients(request, 7, {top: np.zeros(0) for top in tops}, norms, array(units), LeafSeconds(*array(3)))


def in_bytes(value):
    """A value in which NaN equals NaN: numbers as their bytes."""
    if isinstance(value, (float, np.ndarray)):
        return np.asarray(value, np.float64).tobytes(), np.shape(value)
    if isinstance(value, (Distances, Evaluations, Gradients, Updates, LeafSeconds)):
        return {field.name: in_bytes(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: in_bytes(item) for name, item in value.items()}
    return tuple(map(in_bytes, value)) if isinstance(value, tuple) else value


@given(st.integers(1, 20), st.integers(2, 9), st.integers(1, 9), st.integers(0, 1), st.data())
def test_every_request_arrives(shards, blocks, chunks, state, data):
    request = data.draw(requests(shards, blocks, chunks))
    message = wire.pack_request(request, state)
    assert wire.unpack_request(message) == (request, state)
    assert len(message) <= wire.longest_request(problem(shards, blocks))


@given(st.integers(1, 20), st.integers(2, 9), st.integers(1, 9), st.data())
def test_every_answer_arrives(shards, blocks, chunks, data):
    request = data.draw(requests(shards, blocks, chunks))
    reply = answer(request, shards, lambda: data.draw(floats), data.draw(st.integers(0, 20)))
    message, spec = wire.pack_answer(reply), problem(shards, blocks)
    assert wire.unpack_key(message) == wire.key(request)
    assert wire.unpack_failure(message) is None

    memory = {node: np.zeros(0) for node in subtree((0, shards))}
    arrived = wire.unpack_answer(message, request, 7, spec, memory.__getitem__)
    assert in_bytes(arrived) == in_bytes(reply)
    if isinstance(arrived, Gradients):
        assert all(total is memory[node] for node, total in arrived.sums.items())


@given(st.integers(1, 20), st.integers(2, 9), st.data(), st.text(max_size=60))
def test_every_failure_arrives(shards, blocks, data, text):
    request = data.draw(requests(shards, blocks, chunks=5))
    message = wire.pack_failure(request, text)
    assert wire.unpack_key(message) == wire.key(request)
    assert wire.unpack_failure(message) == text


def test_an_answer_names_its_request_among_those_of_other_plans_and_ranges():
    plans = [(version, *ends) for version in (0, 1) for ends in ((0, 4), (0, 2), (2, 4))]
    assert {wire.key(GradientRequest(3, *plan)) for plan in plans} == set(plans)


@pytest.mark.parametrize("letter", ["x", "é", "𝒱"])
@pytest.mark.parametrize("end", ["", "!", "!!", "!!!"])
def test_of_a_long_traceback_the_end_arrives(letter, end):
    """The exception is named in its last line. A letter that is cut through is replaced."""
    last_line = "\nZeroDivisionError: division by zero" + end
    traceback = "Traceback: " + 40_000 * letter + last_line
    request = GradientRequest(0, 1, 0, 4)
    message = wire.pack_failure(request, traceback)
    arrived = wire.unpack_failure(message)
    assert arrived.endswith(20 * letter + last_line)
    assert len(traceback) > len(arrived) > 0.9 * LONGEST_TRACEBACK / len(letter.encode())
    assert arrived.lstrip("\ufffd") in traceback


def test_a_traceback_of_odd_characters_arrives():
    arrived = wire.unpack_failure(wire.pack_failure(GradientRequest(0, 1, 0, 4), "OSError: /data/\udcff.npy"))
    assert arrived.startswith("OSError: /data/")


@pytest.mark.parametrize("shards", [1, 2, 7, 64, 4096])
@pytest.mark.parametrize("blocks", [2, 9])
@pytest.mark.parametrize("chunks", [0, 1, 5000, 20_000])
def test_nothing_is_longer_than_announced(shards, blocks, chunks):
    """The longest there can be: all units in one request, and of an update's sums each a leaf's."""
    spec = problem(shards, blocks)
    leaves = tuple(((shard, shard + 1), 10**6) for shard in range(shards))
    longest = {
        GradientRequest(0, 0, 0, shards): 3 + (2 * shards - 1) + shards,
        UpdateRequest(0, 0, 0, blocks, 1, 0.1, leaves): 1 + (shards - 1 + 3) * blocks,
        RowDistancesRequest(0, 0, 0, shards, 2**62): 2 * shards,
        BatchDistancesRequest(0, 0, 0, 65_536, 2**62, 2**31, True): 2 * 65_536,
    }
    if chunks:
        longest[EvaluationRequest(0, 0, 0, chunks, "train")] = 2 * chunks
    lengths = []
    for request, count in longest.items():
        assert len(wire.pack_request(request, 1)) <= wire.longest_request(spec)
        lengths.append(len(wire.pack_answer(answer(request, shards, lambda: 1.0))))
        assert lengths[-1] == 25 + 8 * count
    lengths.append(len(wire.pack_failure(GradientRequest(0, 0, 0, 1), 100_000 * "x")))
    assert len(wire.pack_request(list(longest)[1], 0)) == wire.longest_request(spec)


def test_the_evaluation_of_five_million_rows_by_one_worker_goes_through_a_socket():
    """In parts: one message of a Unix socket of default size has at most 212,960 bytes."""
    request = EvaluationRequest(0, 0, 0, 20_000, "train")
    message = wire.pack_answer(answer(request, 4, lambda: 1.0))
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arrived = []
    with one, other:
        for part in wire.parts(message):
            one.send(part)
            arrived.append(other.recv(wire.LONGEST_MESSAGE))
    assert [part[0] for part in arrived] == [1] * (len(arrived) - 1) + [0]
    assert b"".join(part[1:] for part in arrived) == message
    assert len(arrived) == 5
