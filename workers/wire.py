"""What the shared-memory exchange says over its sockets: requests, and answers as a few numbers. Pure; both ends are here."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem, Split
from shardsgd.model.state import BlockUpdates
from shardsgd.model.tree import Node, above, cover, subtree
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    Distances,
    EvaluationRequest,
    Evaluations,
    GradientRequest,
    Gradients,
    LeafSeconds,
    Reply,
    Request,
    RowDistancesRequest,
    UpdateRequest,
    Updates,
    WorkerId,
)

# Of a request among those a worker has not answered: plan version, start, stop.
Key = tuple[int, int, int]

# kind, number of the state to read, step, plan version, start, stop
_REQUEST = struct.Struct("<BBqqqq")
_GRADIENTS, _UPDATES = 0, 1
_SPLITS: Mapping[int, Split] = {2: "train", 3: "validation"}
_ROW_DISTANCES, _BATCH_DISTANCES = 4, 5
# rows, rate; then start, stop and worker of each holder
_UPDATE = struct.Struct("<qd")
# first; then, of batches, batch and replacement
_FIRST = struct.Struct("<q")
_BATCHES = struct.Struct("<qq?")
# whether it failed, plan version, start, stop; then numbers, or a traceback
_ANSWER = struct.Struct("<?qqq")
_LONGEST_TRACEBACK = 32_000
# What a worker says of its own accord: it has been given notice.
NOTICE = bytes([2])
# A message of a socket must fit its buffer, which is some 200 kB on Linux unless the administrator says otherwise.
_PART = 2**16
LONGEST_MESSAGE = 1 + _PART


def key(request: Request) -> Key:
    """What an answer names its request by."""
    return request.plan_version, request.start, request.stop


def pack_request(request: Request, state: int) -> bytes:
    """A request, to be computed with the given one of the two states."""
    where = (state, request.step, request.plan_version, request.start, request.stop)
    match request:
        case GradientRequest():
            return _REQUEST.pack(_GRADIENTS, *where)
        case EvaluationRequest():
            return _REQUEST.pack(next(kind for kind, split in _SPLITS.items() if split == request.split), *where)
        case UpdateRequest():
            holders = np.array([(*node, worker) for node, worker in request.holders], np.int64)
            return _REQUEST.pack(_UPDATES, *where) + _UPDATE.pack(request.rows, request.rate) + holders.tobytes()
        case RowDistancesRequest():
            return _REQUEST.pack(_ROW_DISTANCES, *where) + _FIRST.pack(request.first)
        case BatchDistancesRequest():
            drawn = _BATCHES.pack(request.first, request.batch, request.replacement)
            return _REQUEST.pack(_BATCH_DISTANCES, *where) + drawn


def unpack_request(message: bytes) -> tuple[Request, int]:
    """The request and the number of the state."""
    kind, state, step, version, first, end = _REQUEST.unpack_from(message)
    if kind == _GRADIENTS:
        return GradientRequest(step, version, first, end), state
    if kind in _SPLITS:
        return EvaluationRequest(step, version, first, end, _SPLITS[kind]), state
    if kind == _ROW_DISTANCES:
        return RowDistancesRequest(step, version, first, end, *_FIRST.unpack_from(message, _REQUEST.size)), state
    if kind == _BATCH_DISTANCES:
        return BatchDistancesRequest(step, version, first, end, *_BATCHES.unpack_from(message, _REQUEST.size)), state
    rows, rate = _UPDATE.unpack_from(message, _REQUEST.size)
    triples = np.frombuffer(message, np.int64, offset=_REQUEST.size + _UPDATE.size).reshape(-1, 3).tolist()
    holders = tuple(((start, stop), worker) for start, stop, worker in triples)
    return UpdateRequest(step, version, first, end, rows, rate, holders), state


def longest_request(problem: Problem) -> int:
    """Bytes of the longest request of a problem: an update whose sums are single leaves."""
    return _REQUEST.size + _UPDATE.size + 3 * 8 * problem.sampling.shards


def pack_answer(reply: Reply) -> bytes:
    """An answer's numbers; sums and blocks are in shared memory."""
    return _ANSWER.pack(False, *key(reply.request)) + np.concatenate(_numbers(reply)).tobytes()


def pack_failure(request: Request, traceback: str) -> bytes:
    """The end of a traceback instead of an answer."""
    return _ANSWER.pack(True, *key(request)) + traceback.encode(errors="backslashreplace")[-_LONGEST_TRACEBACK:]


def parts(answer: bytes) -> Iterator[bytes]:
    """An answer as messages that a socket takes: each begins with whether more follow."""
    for start in range(0, len(answer), _PART):
        more = start + _PART < len(answer)
        yield bytes([more]) + answer[start : start + _PART]


def unpack_key(message: bytes) -> Key:
    """Which request a message answers."""
    _, version, start, stop = _ANSWER.unpack_from(message)
    return version, start, stop


def unpack_failure(message: bytes) -> str | None:
    """The traceback, if the message is one."""
    failed, *_ = _ANSWER.unpack_from(message)
    return message[_ANSWER.size :].decode(errors="replace") if failed else None


def unpack_answer(
    message: bytes, request: Request, worker: WorkerId, problem: Problem, sum_of: Callable[[Node], Flat]
) -> Reply:
    """An answer, with `sum_of` telling where the worker leaves a node's sum."""
    numbers = np.frombuffer(message, np.float64, offset=_ANSWER.size)
    units, shards = request.stop - request.start, problem.sampling.shards
    match request:
        case EvaluationRequest():
            return Evaluations(request, worker, numbers[:units], numbers[units:])
        case GradientRequest():
            nodes = cover(request.start, request.stop, shards)
            below = [node for top in nodes for node in subtree(top)]
            seconds, norms, losses = numbers[:3], numbers[3 : 3 + len(below)], numbers[3 + len(below) :]
            by_node = dict(zip(below, norms.tolist(), strict=True))
            sums = {node: sum_of(node) for node in nodes}
            return Gradients(request, worker, sums, by_node, losses, LeafSeconds(*seconds.tolist()))
        case UpdateRequest():
            nodes = above([node for node, _ in request.holders], shards)
            end = 1 + len(nodes) * units
            norms, rest = numbers[1:end].reshape(len(nodes), units), numbers[end:]
            # As many as are left: regularizer and finiteness have one each for a block.
            pieces, others = rest[: -2 * units], rest[-2 * units :].reshape(2, units)
            return Updates(request, worker, BlockUpdates(norms, pieces, *others), float(numbers[0]))
        case RowDistancesRequest() | BatchDistancesRequest():
            return Distances(request, worker, numbers.reshape(units, len(problem.layout.entries)))


def _numbers(reply: Reply) -> list[NDArray[np.float64]]:
    match reply:
        case Evaluations():
            return [reply.losses, reply.hits]
        case Gradients(seconds=LeafSeconds() as seconds):
            norms = [reply.norms[node] for top in reply.sums for node in subtree(top)]
            return [np.array([seconds.gather, seconds.leaf, seconds.reduce]), np.array(norms), reply.losses]
        case Updates():
            return [np.array([reply.seconds]), reply.made.norms.ravel(), *reply.made[1:]]
        case Distances():
            return [reply.squared.ravel()]
