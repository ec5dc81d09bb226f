"""Rounds: dispatching the units of one computation to the workers and collecting every answer, whatever happens to a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardsgd.coordinator.plan import Range, plan
from shardsgd.errors import InterruptedJobError, LeafError, WorkersLostError
from shardsgd.workers.exchange import (
    EvaluationRequest,
    Exchange,
    Reply,
    Request,
    RequestFailed,
    UpdateRequest,
    WorkerId,
    WorkerLost,
)

# How late a Ctrl-C may be noticed while waiting for workers.
_POLL_S = 0.1


class Rounds:
    """Runs rounds over one exchange.

    Attributes:
        recoveries: workers lost so far that the run survived.
    """

    def __init__(self, exchange: Exchange, interrupted: Callable[[], bool], recoveries: int = 0) -> None:
        self._exchange = exchange
        self._interrupted = interrupted
        self._plan_version = 0
        self.recoveries = recoveries

    def run(self, units: int, request: Callable[[int, int, int], Request]) -> Sequence[Reply]:
        """Answers that together hold every unit 0 … units − 1 exactly once.

        A lost worker's units go to the others within the round. Answers to anything not asked in this round are dropped.

        Args:
            units: leaves, blocks or chunks.
            request: makes the request of (plan version, start, stop).

        Raises:
            InterruptedJobError: the user asked to stop; nothing of this round is kept.
            LeafError: a computation raised; it would raise on any worker.
            WorkersLostError: no worker is left.
        """
        outstanding: dict[Request, WorkerId] = {}
        replies: list[Reply] = []
        self._dispatch([(0, units)], request, outstanding)
        while outstanding:
            if self._interrupted():
                raise InterruptedJobError("interrupted")
            for event in self._exchange.receive(_POLL_S):
                if isinstance(event, WorkerLost):
                    lost = [asked for asked, worker in outstanding.items() if worker == event.worker]
                    for asked in lost:
                        del outstanding[asked]
                    self._dispatch(sorted((asked.start, asked.stop) for asked in lost), request, outstanding, event)
                    self.recoveries += 1
                elif isinstance(event, RequestFailed):
                    if event.request in outstanding:
                        raise LeafError(_failure(event))
                elif outstanding.pop(event.request, None) is not None:
                    replies.append(event)
        return replies

    def _dispatch(
        self,
        missing: Sequence[Range],
        request: Callable[[int, int, int], Request],
        outstanding: dict[Request, WorkerId],
        loss: WorkerLost | None = None,
    ) -> None:
        if not missing:
            return
        workers = self._exchange.workers
        if not workers:
            why = f"; the last one was lost: {loss.reason}" if loss else ""
            raise WorkersLostError(f"no worker is left to compute with{why}")
        self._plan_version += 1
        for worker, ranges in plan(missing, workers).items():
            for start, stop in ranges:
                asked = request(self._plan_version, start, stop)
                outstanding[asked] = worker
                self._exchange.send(worker, asked)


def _failure(event: RequestFailed) -> str:
    request = event.request
    units = "leaves"
    if isinstance(request, EvaluationRequest):
        units = f"{request.split} chunks"
    elif isinstance(request, UpdateRequest):
        units = "blocks"
    where = f"{units} {request.start} to {request.stop - 1}"
    return f"worker {event.worker} failed in step {request.step} on {where}:\n{event.traceback}"
