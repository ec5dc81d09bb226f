"""The shared-memory exchange, for workers on the coordinator's node: both ends.

The training state and every worker's gradient sums lie in memory without a name, which all of them see. A Unix socket for each
worker carries the few bytes of requests and answers, wakes whoever waits, and by closing reports a death at once. The socket's
address is in the abstract namespace, so there is no file either: `kill -9` leaves nothing.

The state has two versions, used in turn: a worker that still computes an older step reads memory that nobody writes until its
answer no longer counts. The sum of tree node (a, b) lies in the worker's buffer a, so the requests of one step never meet.
"""

from __future__ import annotations

import os
import secrets
import select
import selectors
import socket
import struct
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from shardsgd.errors import JobError
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.model.state import StateBuffers, Updater
from shardsgd.model.tree import Node
from shardsgd.workers import wire
from shardsgd.workers.exchange import (
    EvaluationRequest,
    Event,
    GradientRequest,
    Reply,
    Request,
    RequestFailed,
    UpdateRequest,
    WorkerId,
    WorkerLost,
)
from shardsgd.workers.pool import WorkerPool, last_line
from shardsgd.workers.shared_memory import SharedBuffers, check_memory

if TYPE_CHECKING:
    from shardsgd.workers.compute import LeafComputer

_HELLO = struct.Struct("<q")  # the worker's number
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_CONNECT_S = 30.0


class SharedMemoryExchange:
    """Coordinator side."""

    updates = True

    def __init__(self, pool: WorkerPool, problem: Problem) -> None:
        """Connects to every worker of the pool.

        Raises:
            JobError: a worker did not connect, or there is not enough memory for the training state and the gradient sums.
        """
        self._problem = problem
        layout, shards, workers = problem.layout, problem.sampling.shards, len(pool.actors)
        state_buffers = 2 * (1 + Updater(problem).slots)
        needed = state_buffers + min(shards, 2 * workers)
        check_memory(needed * layout.nbytes, f"{needed} buffers of {layout.parameters:,} parameters")
        self._state = SharedBuffers.create(layout, state_buffers)
        self._sums = SharedBuffers.create(layout, shards * (1 + max(pool.actors)))
        self.states = _states(self._state, state_buffers)
        self._published = 0
        self._sockets: dict[WorkerId, socket.socket] = {}
        # Of each worker, the parts of an answer that came so far.
        self._parts: dict[WorkerId, list[bytes]] = {worker: [] for worker in pool.actors}
        self._unanswered: dict[WorkerId, dict[wire.Key, Request]] = {worker: {} for worker in pool.actors}
        self._selector = selectors.DefaultSelector()
        self._undelivered: list[Event] = []
        try:
            self._connect(pool)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""
        return sorted(self._sockets)

    def publish(self, number: int) -> None:
        """Says which of the two states requests are about; nothing is copied."""
        self._published = number

    def send(self, worker: WorkerId, request: Request) -> None:
        """Sends a worker a few bytes."""
        self._unanswered[worker][wire.key(request)] = request
        try:
            self._sockets[worker].send(wire.pack_request(request, self._published))
        except OSError:
            self._undelivered.append(self._lose(worker))

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """What arrived since the last call, waiting for at least one event; empty after `timeout_s` seconds."""
        events, self._undelivered = self._undelivered, []
        ready = self._selector.select(0 if events else timeout_s)
        arrived = [self._event(key.data) for key, _ in ready]
        return events + [event for event in arrived if event is not None]

    def close(self) -> None:
        """Hangs up and frees the shared memory; may be called twice."""
        self._selector.close()
        for connection in self._sockets.values():
            connection.close()
        self._state.close()
        self._sums.close()
        self._sockets.clear()

    def _connect(self, pool: WorkerPool) -> None:
        # In the abstract namespace a socket has no file; its random name keeps strangers out, its peer's uid other users.
        address = f"\0shardsgd-{secrets.token_hex(16)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen(len(pool.actors))
            listener.settimeout(0.1)
            serving = [actor.serve.remote(address) for actor in pool.actors.values()]
            deadline = time.monotonic() + _CONNECT_S
            while len(self._sockets) < len(pool.actors):
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    _check_serving(serving, deadline)
                else:
                    self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        """Hands a worker the memory; hangs up on whoever belongs to another user."""
        if _peer_uid(connection) != os.getuid():
            connection.close()
            return
        connection.settimeout(_CONNECT_S)
        (worker,) = _HELLO.unpack(connection.recv(_HELLO.size))
        socket.send_fds(connection, [_HELLO.pack(self._sums.count)], [self._state.fd, self._sums.fd])
        connection.settimeout(None)
        self._sockets[worker] = connection
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _event(self, worker: WorkerId) -> Event | None:
        try:
            message = self._sockets[worker].recv(wire.LONGEST_MESSAGE)
        except OSError:
            message = b""
        if not message:
            return self._lose(worker)
        self._parts[worker].append(message[1:])
        if message[0]:
            return None
        answer = b"".join(self._parts[worker])
        self._parts[worker].clear()
        request = self._unanswered[worker].pop(wire.unpack_key(answer))
        failure = wire.unpack_failure(answer)
        if failure is not None:
            return RequestFailed(worker, request, failure)
        sum_of = partial(_sum, self._sums, self._problem, worker)
        return wire.unpack_answer(answer, request, worker, self._problem, sum_of)

    def _lose(self, worker: WorkerId) -> WorkerLost:
        connection = self._sockets.pop(worker)
        self._selector.unregister(connection)
        connection.close()
        self._unanswered[worker].clear()
        return WorkerLost(worker, "its process ended")


def serve(address: str, worker: WorkerId, problem: Problem, computer: LeafComputer) -> None:
    """Worker side: answers requests until the coordinator hangs up.

    Args:
        address: of the coordinator's socket.
        worker: this worker's number.
        problem: the job's mathematics.
        computer: of this worker.

    Raises:
        JobError: the socket belongs to another user.
    """
    with ExitStack() as stack, suppress(BrokenPipeError, ConnectionResetError):
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.connect(address)
        if _peer_uid(connection) != os.getuid():
            raise JobError("the coordinator's socket belongs to another user")
        connection.send(_HELLO.pack(worker))
        message, (state_fd, sums_fd), _, _ = socket.recv_fds(connection, _HELLO.size, 2)
        state_buffers = 2 * (1 + Updater(problem).slots)
        state = SharedBuffers(state_fd, problem.layout, state_buffers)
        stack.callback(state.close)
        sums = SharedBuffers(sums_fd, problem.layout, *_HELLO.unpack(message))
        stack.callback(sums.close)
        answerer = _Answerer(worker, problem, computer, _states(state, state_buffers), sums)
        longest = wire.longest_request(problem)
        incoming = select.poll()
        incoming.register(connection, select.POLLIN)
        while message := connection.recv(longest):
            request, number = wire.unpack_request(message)
            try:
                answer = wire.pack_answer(answerer.answer(request, number))
            except Exception:  # noqa: BLE001  (whatever it is, the coordinator decides what becomes of it)
                answer = wire.pack_failure(request, traceback.format_exc())
            for part in wire.parts(answer):
                connection.send(part)
            answerer.prepare(request, lambda: not incoming.poll(0))


class _Answerer:
    """A worker's way of answering requests out of shared memory."""

    def __init__(
        self,
        worker: WorkerId,
        problem: Problem,
        computer: LeafComputer,
        states: tuple[StateBuffers, StateBuffers],
        sums: SharedBuffers,
    ) -> None:
        self._worker = worker
        self._problem = problem
        self._computer = computer
        self._states = states
        self._parameters = [computer.shared_parameters(state.theta) for state in states]
        self._sums = sums
        self._last: GradientRequest | None = None

    def answer(self, request: Request, number: int) -> Reply:
        """Computes with state `number`."""
        if isinstance(request, EvaluationRequest):
            return self._computer.evaluations(request, self._parameters[number])
        if isinstance(request, UpdateRequest):
            sums = {node: _sum(self._sums, self._problem, holder, node) for node, holder in request.holders}
            return self._computer.updates(request, sums, self._states[number], self._states[1 - number])
        into = partial(_sum, self._sums, self._problem, self._worker)
        return self._computer.gradients(request, self._parameters[number], into)

    def prepare(self, answered: Request, idle: Callable[[], bool]) -> None:
        """Gathers, while there is nothing else to do, the rows that the same request for the next step will need."""
        if isinstance(answered, GradientRequest):
            self._last = answered
        # More workers than blocks: the others are not asked to update.
        updates = self._problem.shares_updates and self._worker < len(self._problem.layout.blocks)
        last_of_step = UpdateRequest if updates else GradientRequest
        if self._last is None or not isinstance(answered, last_of_step):
            return
        for shard in range(self._last.start, self._last.stop):
            if not idle() or not self._computer.gather_ahead(self._last.step + 1, shard):
                return


def _states(memory: SharedBuffers, count: int) -> tuple[StateBuffers, StateBuffers]:
    """The two versions of the state: each θ and then the optimizer's slots."""
    first, second = (
        [memory.buffer(number) for number in half] for half in (range(count // 2), range(count // 2, count))
    )
    return StateBuffers(first[0], tuple(first[1:])), StateBuffers(second[0], tuple(second[1:]))


def _sum(sums: SharedBuffers, problem: Problem, worker: WorkerId, node: Node) -> Flat:
    """Where a worker leaves a node's sum."""
    return sums.buffer(worker * problem.sampling.shards + node[0])


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def _check_serving(serving: Sequence[Any], deadline: float) -> None:
    """Gives up on workers that died or do not come."""
    ended, _ = ray.wait(list(serving), num_returns=1, timeout=0)
    try:
        ray.get(ended)
    except ray.exceptions.RayError as error:
        raise JobError(f"a worker could not connect: {last_line(error)}") from error
    if time.monotonic() > deadline:
        raise JobError(f"a worker did not connect within {_CONNECT_S:g} s")
