"""The shared-memory exchange, for workers on the coordinator's node: both ends.

θ and each worker's gradient sums lie in memory without a name. A Unix socket for each worker carries the few bytes of requests
and answers, wakes whoever waits, and by closing reports a death at once. The socket's address is in the abstract namespace, so
there is no file either: `kill -9` leaves nothing.

θ has two buffers, used in turn: a worker that still computes an older step reads memory that nobody writes until its answer no
longer counts. The sum of tree node (a, b) lies in the worker's buffer a, so the requests of one step never meet.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import struct
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import ray

from shardsgd.errors import JobError
from shardsgd.model.evaluation import chunks
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem, Split
from shardsgd.model.tree import cover, subtree
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import (
    EvaluationRequest,
    Evaluations,
    Event,
    GradientRequest,
    Gradients,
    Request,
    RequestFailed,
    WorkerId,
    WorkerLost,
)
from shardsgd.workers.pool import WorkerPool, last_line
from shardsgd.workers.shared_memory import SharedBuffers, check_memory

# kind, step, plan version, start, stop, number of the θ buffer
_HEADER = struct.Struct("<BqqqqB")
_KINDS: tuple[Split | None, ...] = (None, "train", "validation")  # gradients, or evaluations of a split
_FAILED = 0x80  # beside the kind, in an answer: a traceback follows
_LONGEST_TRACEBACK = 32_000
_HELLO = struct.Struct("<q")  # the worker's number
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_THETA_BUFFERS = 2
_CONNECT_S = 30.0


class SharedMemoryExchange:
    """Coordinator side."""

    def __init__(self, pool: WorkerPool, problem: Problem) -> None:
        """Connects to every worker of the pool.

        Raises:
            JobError: a worker did not connect, or there is not enough memory for θ and the gradient sums.
        """
        self._problem = problem
        layout, shards = problem.layout, problem.sampling.shards
        buffers = _THETA_BUFFERS + min(shards, 2 * len(pool.actors))
        check_memory(buffers * layout.nbytes, f"{buffers} buffers of {layout.parameters:,} parameters")
        # An answer holds the norms of < 2V nodes and the losses of V leaves, or two numbers a chunk, or a traceback.
        chunk_counts = (len(chunks(problem, "train")), len(chunks(problem, "validation")))
        self._longest_answer = _HEADER.size + max(8 * 3 * shards, 8 * 2 * max(chunk_counts), _LONGEST_TRACEBACK)
        self._theta = SharedBuffers.create(layout, _THETA_BUFFERS)
        self._published: Flat | None = None
        self._current = 0
        self._sums: dict[WorkerId, SharedBuffers] = {}
        self._sockets: dict[WorkerId, socket.socket] = {}
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

    def publish(self, theta: Flat) -> None:
        """Copies θ into the buffer that the last θ is not in."""
        if theta is not self._published:
            self._current = (self._current + 1) % _THETA_BUFFERS
            np.copyto(self._theta.buffer(self._current), theta)
            self._published = theta

    def send(self, worker: WorkerId, request: Request) -> None:
        """Sends a worker a few bytes."""
        try:
            self._sockets[worker].send(_header(request, self._current))
        except OSError:
            self._undelivered.append(self._lose(worker))

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """What arrived since the last call, waiting for at least one event; empty after `timeout_s` seconds."""
        events, self._undelivered = self._undelivered, []
        ready = self._selector.select(0 if events else timeout_s)
        return events + [self._event(key.data) for key, _ in ready]

    def close(self) -> None:
        """Hangs up and frees the shared memory; may be called twice."""
        self._selector.close()
        for connection in self._sockets.values():
            connection.close()
        for buffers in (self._theta, *self._sums.values()):
            buffers.close()
        self._sockets.clear()

    def _connect(self, pool: WorkerPool) -> None:
        # In the abstract namespace a socket has no file; its random name keeps strangers out, its peer's uid other users.
        address = f"\0shardsgd-{secrets.token_hex(16)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen(len(pool.actors))
            listener.settimeout(0.1)
            serving = [actor.serve.remote(address, worker) for worker, actor in pool.actors.items()]
            deadline = time.monotonic() + _CONNECT_S
            while len(self._sockets) < len(pool.actors):
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    _check_serving(serving, deadline)
                else:
                    self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        """Hands a worker its memory; hangs up on whoever belongs to another user."""
        if _peer_uid(connection) != os.getuid():
            connection.close()
            return
        connection.settimeout(_CONNECT_S)
        (worker,) = _HELLO.unpack(connection.recv(_HELLO.size))
        sums = SharedBuffers.create(self._problem.layout, self._problem.sampling.shards)
        socket.send_fds(connection, [b"\0"], [self._theta.fd, sums.fd])
        connection.settimeout(None)
        self._sums[worker] = sums
        self._sockets[worker] = connection
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _event(self, worker: WorkerId) -> Event:
        try:
            answer = self._sockets[worker].recv(self._longest_answer)
        except OSError:
            answer = b""
        if not answer:
            return self._lose(worker)
        kind, *fields, _ = _HEADER.unpack_from(answer)
        request = _request(kind & ~_FAILED, *fields)
        if kind & _FAILED:
            return RequestFailed(worker, request, answer[_HEADER.size :].decode(errors="replace"))
        numbers = np.frombuffer(answer, np.float64, offset=_HEADER.size)
        units = request.stop - request.start
        if isinstance(request, EvaluationRequest):
            return Evaluations(request, numbers[:units], numbers[units:])
        nodes = cover(request.start, request.stop, self._problem.sampling.shards)
        below = [node for top in nodes for node in subtree(top)]
        sums = {node: self._sums[worker].buffer(node[0]) for node in nodes}
        norms = dict(zip(below, numbers[: len(below)].tolist(), strict=True))
        return Gradients(request, sums, norms, numbers[len(below) :])

    def _lose(self, worker: WorkerId) -> WorkerLost:
        connection = self._sockets.pop(worker)
        self._selector.unregister(connection)
        connection.close()
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
        _, (theta_fd, sums_fd), _, _ = socket.recv_fds(connection, 1, 2)
        theta = SharedBuffers(theta_fd, problem.layout, _THETA_BUFFERS)
        stack.callback(theta.close)
        sums = SharedBuffers(sums_fd, problem.layout, problem.sampling.shards)
        stack.callback(sums.close)
        while message := connection.recv(_HEADER.size):
            kind, *fields, number = _HEADER.unpack(message)
            request = _request(kind, *fields)
            try:
                answer = _compute(computer, request, theta.buffer(number), sums)
            except Exception:  # noqa: BLE001  (whatever it is, the coordinator decides what becomes of it)
                text = traceback.format_exc().encode()[-_LONGEST_TRACEBACK:]
                answer = _HEADER.pack(kind | _FAILED, *fields, number) + text
            else:
                answer = message + answer
            connection.send(answer)


def _compute(computer: LeafComputer, request: Request, theta: Flat, sums: SharedBuffers) -> bytes:
    """The numbers of an answer, in the order in which `SharedMemoryExchange` reads them; the sums are left in their buffers."""
    if isinstance(request, EvaluationRequest):
        evaluations = computer.evaluations(request, theta)
        return evaluations.losses.tobytes() + evaluations.hits.tobytes()
    gradients = computer.gradients(request, theta, into=lambda node: sums.buffer(node[0]))
    norms = [gradients.norms[node] for top in gradients.sums for node in subtree(top)]
    return np.array(norms).tobytes() + gradients.losses.tobytes()


def _header(request: Request, theta: int) -> bytes:
    kind = _KINDS.index(request.split if isinstance(request, EvaluationRequest) else None)
    return _HEADER.pack(kind, request.step, request.plan_version, request.start, request.stop, theta)


def _request(kind: int, step: int, plan_version: int, start: int, stop: int) -> Request:
    split = _KINDS[kind]
    if split is None:
        return GradientRequest(step, plan_version, start, stop)
    return EvaluationRequest(step, plan_version, start, stop, split)


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
