"""The ray exchange: actor calls and the object store. Works wherever Ray does, across nodes."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.model.state import Updater
from shardsgd.workers.exchange import Event, Reply, Request, RequestFailed, WorkerId, WorkerLost
from shardsgd.workers.pool import WorkerPool, first_line, plain


class RayExchange:
    """Coordinator side: each request is a call of a worker's actor, its answer an object."""

    # Workers have no memory in common that they could write.
    updates = False

    def __init__(self, pool: WorkerPool, problem: Problem) -> None:
        updater = Updater(problem)
        self.states = (updater.buffers(), updater.buffers())
        self._actors = pool.actors
        self._theta: ray.ObjectRef[Flat] | None = None
        self._pending: dict[ray.ObjectRef[Reply], tuple[WorkerId, Request]] = {}

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""
        return sorted(self._actors)

    def publish(self, number: int) -> None:
        """Puts θ into the object store, once for all workers."""
        self._theta = ray.put(self.states[number].theta)

    def send(self, worker: WorkerId, request: Request) -> None:
        """Calls a worker's actor."""
        self._pending[self._actors[worker].compute.remote(request, self._theta)] = (worker, request)

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """What arrived since the last call, waiting for at least one event; empty after `timeout_s` seconds."""
        first, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if not first:
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        events = [self._event(reference) for reference in ready]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Forgets what is under way and frees θ; may be called twice."""
        self._pending.clear()
        self._theta = None

    def _event(self, reference: ray.ObjectRef[Reply]) -> Event | None:
        worker, request = self._pending.pop(reference)
        try:
            reply: Reply = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            return RequestFailed(worker, request, plain(error))
        except ray.exceptions.RayError as error:
            # A dead worker fails each of its calls; the first one reports it.
            if self._actors.pop(worker, None) is None:
                return None
            return WorkerLost(worker, first_line(error))
        return reply
