"""The ray exchange: actor calls and the object store. Works wherever Ray does, across nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray

from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.model.state import Updater
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    Event,
    Request,
    RequestFailed,
    RowDistancesRequest,
    WorkerId,
    WorkerJoined,
    WorkerLeaving,
    WorkerLost,
)
from shardsgd.workers.pool import WorkerPool, first_line, last_line, plain


class RayExchange:
    """Coordinator side: each request is a call of a worker's actor, its answer an object."""

    # Workers have no memory in common that they could write.
    updates = False

    def __init__(self, pool: WorkerPool, problem: Problem) -> None:
        updater = Updater(problem)
        self.states = (updater.buffers(), updater.buffers())
        self._pool = pool
        self._workers = set(pool.infos)
        self._published = 0
        self._theta: ray.ObjectRef[Flat] | None = None
        # The other state's θ, once a request has asked for it.
        self._other: ray.ObjectRef[Flat] | None = None
        # Calls under way, and of workers that start, with None, the answer to whether they are ready.
        self._pending: dict[ray.ObjectRef[Any], tuple[WorkerId, Request | None]] = {}
        self._undelivered: list[Event] = []
        self._noticed: set[WorkerId] = set()

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""
        return sorted(self._workers)

    def start(self, worker: WorkerId) -> None:
        """Starts a worker, wherever Ray has a CPU free; that it joined or was lost will be received."""
        self._pending[self._pool.start(worker)] = (worker, None)

    def kill(self, worker: WorkerId) -> None:
        """Ends a worker's process; its calls then say that it is lost."""
        idle = all(called != worker for called, _ in self._pending.values())
        self._pool.kill(worker)
        if idle and worker in self._workers:
            self._workers.discard(worker)
            self._undelivered.append(WorkerLost(worker, "killed"))

    def dismiss(self, worker: WorkerId) -> None:
        """Stops a worker that has answered all it was asked."""
        self._forget(worker)
        self._pool.kill(worker)

    def publish(self, number: int) -> None:
        """Puts θ into the object store, once for all workers."""
        self._published, self._other = number, None
        self._theta = ray.put(self.states[number].theta)

    def send(self, worker: WorkerId, request: Request) -> None:
        """Calls a worker's actor; nothing of one whose loss has not been received yet."""
        actor = self._pool.actors.get(worker)
        if actor is not None and worker in self._workers:
            needed = [self._theta]
            if isinstance(request, RowDistancesRequest | BatchDistancesRequest):
                if self._other is None:
                    self._other = ray.put(self.states[1 - self._published].theta)
                needed.append(self._other)
            self._pending[actor.compute.remote(request, *needed)] = (worker, request)

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """What arrived since the last call, waiting for at least one event; empty after `timeout_s` seconds."""
        events, self._undelivered = self._undelivered, []
        if not self._pending:
            if not events:
                time.sleep(timeout_s)
            return events
        first, _ = ray.wait(list(self._pending), num_returns=1, timeout=0 if events else timeout_s)
        if not first:
            return events
        ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return events + [event for reference in ready for event in self._events(reference)]

    def close(self) -> None:
        """Forgets what is under way and frees θ; may be called twice."""
        self._pending.clear()
        self._workers.clear()
        self._theta = self._other = None

    def _events(self, reference: ray.ObjectRef[Any]) -> list[Event]:
        if reference not in self._pending:
            return []  # a call of a worker whose loss another call has told just now
        worker, request = self._pending.pop(reference)
        if request is None:
            return [self._started(worker)]
        try:
            reply, leaving = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            return [RequestFailed(worker, request, plain(error))]
        except ray.exceptions.RayError as error:
            self._forget(worker)
            self._pool.kill(worker)
            return [WorkerLost(worker, first_line(error))]
        if not leaving or worker in self._noticed:
            return [reply]
        self._noticed.add(worker)
        return [reply, WorkerLeaving(worker)]

    def _started(self, worker: WorkerId) -> Event:
        try:
            self._pool.check(worker)
        except (ray.exceptions.RayError, KeyError) as error:
            self._pool.kill(worker)
            why = last_line(error) if isinstance(error, ray.exceptions.RayError) else "killed before it was ready"
            return WorkerLost(worker, f"it could not start: {why}")
        self._workers.add(worker)
        return WorkerJoined(worker)

    def _forget(self, worker: WorkerId) -> None:
        """A dead worker fails each of its calls; one of them is enough."""
        self._workers.discard(worker)
        self._noticed.discard(worker)
        for reference in [reference for reference, (called, _) in self._pending.items() if called == worker]:
            del self._pending[reference]
