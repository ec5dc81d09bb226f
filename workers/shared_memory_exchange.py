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

import math
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
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
    BatchDistancesRequest,
    EvaluationRequest,
    Event,
    GradientRequest,
    Reply,
    Request,
    RequestFailed,
    RowDistancesRequest,
    UpdateRequest,
    WorkerId,
    WorkerJoined,
    WorkerLeaving,
    WorkerLost,
)
from shardsgd.workers.faults import FaultInjector
from shardsgd.workers.handover import Address, Listener, connect
from shardsgd.workers.pool import WorkerPool, last_line
from shardsgd.workers.shared_memory import SharedBuffers
from shardsgd.workers.worker import Notice

if TYPE_CHECKING:
    from shardsgd.workers.compute import LeafComputer

_CONNECT_S = 30.0
# How late it may be noticed that a worker died before it connected.
_POLL_S = 0.1


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
        self._pool = pool
        self._problem = problem
        self._published = 0
        # Workers that have not connected yet, and what becomes of their service.
        self._starting: dict[WorkerId, Any] = {}
        self._looked_at_starting = 0.0
        self._sockets: dict[WorkerId, socket.socket] = {}
        # Of the sockets, and the listener. A selector takes twice the time of what it wraps.
        self._incoming = select.poll()
        self._workers_by_fd: dict[int, WorkerId] = {}
        # Of each worker, the parts of an answer that came so far.
        self._parts: dict[WorkerId, list[bytes]] = {}
        self._unanswered: dict[WorkerId, dict[wire.Key, Request]] = {}
        self._undelivered: list[Event] = []
        # Whether sums may lie where no later round will put any.
        self._untidy = False
        count = state_buffers(problem)
        with ExitStack() as stack:
            stack.callback(self._hang_up)
            try:
                self._listener = stack.enter_context(closing(Listener(pool.most)))
                self._incoming.register(self._listener, select.POLLIN)
                self._state = SharedBuffers.create(problem.layout, count)
                stack.callback(self._state.close)
                self._sums = SharedBuffers.create(problem.layout, problem.sampling.shards * pool.most)
                stack.callback(self._sums.close)
                self._connect(interrupted)
            except OSError as error:
                raise JobError(f"the shared-memory exchange could not be opened: {error}") from error
            self._resources = stack.pop_all()
        self.states = _states(self._state)

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""
        return sorted(self._sockets)

    def start(self, worker: WorkerId) -> None:
        """Starts a worker on this node; that it joined or was lost will be received."""
        self._pool.start(worker, ray.get_runtime_context().get_node_id())
        self._invite(worker)

    def kill(self, worker: WorkerId) -> None:
        """Ends a worker's process; its socket then says that it is lost."""
        self._pool.kill(worker)
        if self._starting.pop(worker, None) is not None:
            self._undelivered.append(WorkerLost(worker, "killed before it was ready"))

    def dismiss(self, worker: WorkerId) -> None:
        """Hangs up on a worker that has answered all it was asked."""
        if worker in self._sockets:
            self._lose(worker)

    def publish(self, number: int) -> None:
        """Says which of the two states requests are about; nothing is copied."""
        self._published = number
        if self._untidy and not any(self._unanswered.values()):
            # Nobody reads sums between two steps, nor writes any. Most of these pages would never be used again.
            self._sums.forget()
            self._untidy = False

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
        if self._starting:
            self._look_at_starting()
        events, self._undelivered = self._undelivered, []
        # Rounded up: the end of a wait that is shorter than a millisecond may not be searched for busily.
        for fd, _ in self._incoming.poll(0 if events else math.ceil(1000 * timeout_s)):
            worker = self._workers_by_fd.get(fd)
            if (event := self._admitted() if worker is None else self._event(worker)) is not None:
                events.append(event)
        return events

    def close(self) -> None:
        """Hangs up and frees the shared memory; may be called twice."""
        self._resources.close()

    def _hang_up(self) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()

    def _connect(self, interrupted: Callable[[], bool]) -> None:
        for worker in self._pool.actors:
            self._invite(worker)
        deadline = time.monotonic() + _CONNECT_S
        while self._starting:
            if interrupted():
                raise InterruptedJobError("interrupted before the first step")
            lost = [event for event in self.receive(_POLL_S) if isinstance(event, WorkerLost)]
            if lost or time.monotonic() > deadline:
                why = f": {lost[0].reason}" if lost else f" within {_CONNECT_S:g} s"
                raise JobError(f"a worker could not connect{why}")

    def _invite(self, worker: WorkerId) -> None:
        """Has a worker connect as soon as it is ready."""
        self._starting[worker] = self._pool.actors[worker].serve.remote(self._listener.address)

    def _admitted(self) -> WorkerJoined | None:
        accepted = self._listener.accept(self._starting, [self._state.fd, self._sums.fd], self._sums.count)
        if accepted is None:
            return None
        worker, connection = accepted
        del self._starting[worker]
        if worker not in self._pool.infos:
            self._pool.check(worker)
        self._sockets[worker] = connection
        self._parts[worker], self._unanswered[worker] = [], {}
        self._workers_by_fd[connection.fileno()] = worker
        self._incoming.register(connection, select.POLLIN)
        return WorkerJoined(worker)

    def _look_at_starting(self) -> None:
        """Finds workers that died before they could connect."""
        now = time.monotonic()
        if now - self._looked_at_starting < _POLL_S:
            return
        self._looked_at_starting = now
        ended, _ = ray.wait(list(self._starting.values()), num_returns=len(self._starting), timeout=0)
        for worker in [worker for worker, serving in self._starting.items() if serving in ended]:
            serving = self._starting.pop(worker)
            try:
                # First what it was prepared with: one that could not be does not serve either.
                if worker not in self._pool.infos:
                    self._pool.check(worker)
                ray.get(serving)
                reason = "it was not let in"
            except ray.exceptions.RayError as error:
                reason = last_line(error)
            self._pool.kill(worker)
            self._undelivered.append(WorkerLost(worker, f"it could not start: {reason}"))

    def _event(self, worker: WorkerId) -> Event | None:
        try:
            message = self._sockets[worker].recv(wire.LONGEST_MESSAGE)
        except OSError:
            message = b""
        if not message:
            return self._lose(worker)
        if message == wire.NOTICE:
            return WorkerLeaving(worker)
        self._parts[worker].append(message[1:])
        if message[0]:
            return None
        answer = b"".join(self._parts[worker])
        self._parts[worker].clear()
        request = self._unanswered[worker].pop(wire.unpack_key(answer), None)
        if request is None:
            return self._lose(worker, "it answered what it was not asked")
        failure = wire.unpack_failure(answer)
        if failure is not None:
            return RequestFailed(worker, request, failure)
        sum_of = partial(_sum, self._sums, self._problem, worker)
        return wire.unpack_answer(answer, request, worker, self._problem, sum_of)

    def _lose(self, worker: WorkerId, reason: str = "its connection closed") -> WorkerLost:
        connection = self._sockets.pop(worker)
        self._incoming.unregister(connection)
        del self._workers_by_fd[connection.fileno()]
        connection.close()
        del self._unanswered[worker], self._parts[worker]
        # Without its connection it is of no use, whatever it was that closed it.
        self._pool.kill(worker)
        self._untidy = True
        return WorkerLost(worker, reason)


def serve(
    address: Address,
    worker: WorkerId,
    problem: Problem,
    computer: LeafComputer,
    faults: FaultInjector | None,
    notice: Notice,
) -> None:
    """Worker side: answers requests until the coordinator hangs up. From then on SIGTERM is the caller's again.

    Args:
        address: of the coordinator.
        worker: this worker's number.
        problem: the job's mathematics.
        computer: of this worker.
        faults: that are to happen to it.
        notice: that this process has been or will be given; the coordinator is told.

    Raises:
        JobError: this is not the coordinator's socket, or it is not expected there.
    """
    with ExitStack() as stack, suppress(BrokenPipeError, ConnectionResetError):
        connection, (state_fd, sums_fd), sums_count = connect(address, worker, descriptors=2)
        stack.enter_context(connection)
        stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, lambda *_: _give_notice(connection, notice))
        if notice.given:
            # While this worker connected.
            _give_notice(connection, notice)
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
                if faults:
                    faults.before_computing(request)
                reply = answerer.answer(request, number)
                if faults:
                    reply = faults.before_replying(reply)
                answer = wire.pack_answer(reply)
            except Exception:  # noqa: BLE001  (whatever it is, the coordinator decides what becomes of it)
                answer = wire.pack_failure(request, traceback.format_exc())
            for part in wire.parts(answer):
                connection.send(part)
            if faults:
                faults.after_replying(request)
            # What fails before it is asked for fails again, with its traceback, when it is.
            with suppress(Exception):
                answerer.prepare(request, lambda: not incoming.poll(0))


def _give_notice(connection: socket.socket, notice: Notice) -> None:
    """Tells the coordinator that this worker has been given notice."""
    notice.given = True
    with suppress(OSError):  # it has hung up already
        connection.send(wire.NOTICE)


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
        if isinstance(request, RowDistancesRequest | BatchDistancesRequest):
            return self._computer.distances(request, self._parameters[number], self._states[1 - number].theta)
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
