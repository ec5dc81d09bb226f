"""The shared-memory exchange, for workers on the coordinator's node: both ends.

The training state and every worker's gradient sums lie in memory without a name, which all of them see. A Unix socket for each
worker (`handover.py`) carries the few bytes of requests and answers, wakes whoever waits, and by closing reports a death at
once. The socket has no file either: `kill -9` leaves nothing.

The state has two versions, used in turn: a worker that still computes an older step reads memory that nobody writes until its
answer no longer counts. The sum of tree node (a, b) lies in the worker's buffer a, so the requests of one step never meet.
Workers also write the state's next version. That is safe as long as a request to update goes to another worker only once the
one that had it is dead, as it is when its socket closes; one that merely hung could wake up and write old blocks over new ones.
"""

from __future__ import annotations

import select
import selectors
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from shardsgd.errors import InterruptedJobError, JobError
from shardsgd.model.layout import Flat
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.problem import Problem
from shardsgd.model.state import state_buffers
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
from shardsgd.workers.handover import Address, Listener, connect
from shardsgd.workers.pool import WorkerPool, last_line
from shardsgd.workers.shared_memory import SharedBuffers

if TYPE_CHECKING:
    from shardsgd.workers.compute import LeafComputer

_CONNECT_S = 30.0


class SharedMemoryExchange:
    """Coordinator side."""

    updates = True

    def __init__(self, pool: WorkerPool, problem: Problem, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Connects to every worker of the pool.

        Args:
            pool: of workers on this node.
            problem: the job's mathematics.
            interrupted: polled while waiting for them.

        Raises:
            JobError: a worker did not connect, or there is no memory or no file descriptor left.
            InterruptedJobError: the user asked to stop.
        """
        self._problem = problem
        self._published = 0
        self._sockets: dict[WorkerId, socket.socket] = {}
        # Of each worker, the parts of an answer that came so far.
        self._parts: dict[WorkerId, list[bytes]] = {worker: [] for worker in pool.actors}
        self._unanswered: dict[WorkerId, dict[wire.Key, Request]] = {worker: {} for worker in pool.actors}
        self._undelivered: list[Event] = []
        count = state_buffers(problem)
        with ExitStack() as stack:
            stack.callback(self._hang_up)
            try:
                self._selector = stack.enter_context(selectors.DefaultSelector())
                self._state = SharedBuffers.create(problem.layout, count)
                stack.callback(self._state.close)
                self._sums = SharedBuffers.create(problem.layout, problem.sampling.shards * (1 + max(pool.actors)))
                stack.callback(self._sums.close)
                self._connect(pool, interrupted)
            except OSError as error:
                raise JobError(f"the shared-memory exchange could not be opened: {error}") from error
            self._resources = stack.pop_all()
        self.states = _states(self._state)

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""
        return sorted(self._sockets)

    def publish(self, number: int) -> None:
        """Says which of the two states requests are about; nothing is copied."""
        self._published = number

    def send(self, worker: WorkerId, request: Request) -> None:
        """Sends a worker a few bytes; nothing to one whose loss has not been received yet."""
        connection = self._sockets.get(worker)
        if connection is None:
            return  # lost since the round was planned; whoever collects hears of it, and of all it was asked
        self._unanswered[worker][wire.key(request)] = request
        try:
            connection.send(wire.pack_request(request, self._published))
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
        self._resources.close()

    def _hang_up(self) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()

    def _connect(self, pool: WorkerPool, interrupted: Callable[[], bool]) -> None:
        with Listener(len(pool.actors)) as listener:
            serving = [actor.serve.remote(listener.address) for actor in pool.actors.values()]
            deadline = time.monotonic() + _CONNECT_S
            while missing := pool.actors.keys() - self._sockets.keys():
                accepted = listener.accept(missing, [self._state.fd, self._sums.fd], self._sums.count)
                if accepted is None:
                    _check_serving(serving, deadline)
                    if interrupted():
                        raise InterruptedJobError("interrupted before the first step")
                else:
                    worker, connection = accepted
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
        self._parts[worker].clear()
        return WorkerLost(worker, "its connection closed")


def serve(address: Address, worker: WorkerId, problem: Problem, computer: LeafComputer) -> None:
    """Worker side: answers requests until the coordinator hangs up.

    Args:
        address: of the coordinator.
        worker: this worker's number.
        problem: the job's mathematics.
        computer: of this worker.

    Raises:
        JobError: this is not the coordinator's socket, or it is not expected there.
    """
    with ExitStack() as stack, suppress(BrokenPipeError, ConnectionResetError):
        connection, (state_fd, sums_fd), sums_count = connect(address, worker, descriptors=2)
        stack.enter_context(connection)
        sums = SharedBuffers(sums_fd, problem.layout, sums_count)
        stack.callback(sums.close)
        state = SharedBuffers(state_fd, problem.layout, state_buffers(problem))
        stack.callback(state.close)
        answerer = _Answerer(worker, problem, computer, _states(state), sums)
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
            # What fails before it is asked for fails again, with its traceback, when it is.
            with suppress(Exception):
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
            if not idle() or not self._computer.gather_ahead(shard, self._last.step + 1):
                return


def _states(memory: SharedBuffers) -> tuple[StateBuffers, StateBuffers]:
    """The two versions of the state: each θ and then the optimizer's slots."""
    first, second = (
        [memory.buffer(number) for number in half]
        for half in (range(memory.count // 2), range(memory.count // 2, memory.count))
    )
    return StateBuffers(first[0], tuple(first[1:])), StateBuffers(second[0], tuple(second[1:]))


def _sum(sums: SharedBuffers, problem: Problem, worker: WorkerId, node: Node) -> Flat:
    """Where a worker leaves a node's sum."""
    return sums.buffer(worker * problem.sampling.shards + node[0])


def _check_serving(serving: Sequence[Any], deadline: float) -> None:
    """Gives up on workers that died or do not come."""
    ended, _ = ray.wait(list(serving), num_returns=1, timeout=0)
    try:
        ray.get(ended)
    except ray.exceptions.RayError as error:
        raise JobError(f"a worker could not connect: {last_line(error)}") from error
    if time.monotonic() > deadline:
        raise JobError(f"a worker did not connect within {_CONNECT_S:g} s")
