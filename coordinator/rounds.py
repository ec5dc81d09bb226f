"""Rounds: dispatching the units of one computation to the workers and collecting every answer, whatever happens to a worker."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shardsgd.coordinator.doubts import still_usual
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.open_round import OpenRound
from shardsgd.coordinator.plan import Ask, Asked, Decision, Patience, RoundState, decide, plan
from shardsgd.errors import InterruptedJobError
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    EvaluationRequest,
    Event,
    Exchange,
    GradientRequest,
    Reply,
    Request,
    RequestFailed,
    RowDistancesRequest,
    WorkerId,
    WorkerJoined,
    WorkerLeaving,
    WorkerLost,
)

# How late a Ctrl-C, or something late, may be noticed while waiting for workers.
_POLL_S = 0.05
# A wait that lasts so much longer was a pause of this process of its own, such as Ctrl-Z, and is not held against workers.
_STOPPED_S = 1.0
# Times of so many rounds say what is usual.
_REMEMBERED = 64

MakeRequest = Callable[[int, int, int], Request]

# Their programs are compiled when a worker is asked for the first time.
_LATE_COMPILED: Mapping[type[Request], str] = {
    EvaluationRequest: "evaluation",
    RowDistancesRequest: "distances",
    BatchDistancesRequest: "distances",
}


@dataclass
class _Current:
    """The round under way.

    Attributes:
        opened: what it has got so far.
        request: makes a request of (plan version, start, stop).
        repeatable: whether two workers may compute the same unit at a time.
        first_version: requests of older plans belong to older rounds.
        weight: what a unit is counted as, so that what units usually take says something of others of their kind.
        repeated: units asked for once more.
        troubled_at: since when something has been wrong; None while nothing is.
    """

    opened: OpenRound
    request: MakeRequest
    repeatable: bool
    first_version: int
    weight: int
    repeated: int = 0
    troubled_at: float | None = None


class Rounds:
    """Runs rounds over one exchange.

    Attributes:
        members: the workers.
        leaves: how many were computed so far, for a step that asked for them once.
        repeated: how many were asked for more than once.
        dropped: answers that came too late, or twice.
    """

    def __init__(
        self,
        exchange: Exchange,
        members: Members,
        clock: Callable[[], float],
        *,
        interrupted: Callable[[], bool] = lambda: False,
        patience: Patience | None = None,
        verify: float = 0.0,
    ) -> None:
        """Begins with nothing under way.

        Args:
            exchange: over which workers are asked.
            members: of the same exchange.
            clock: in seconds; need not be the time of day.
            interrupted: polled while waiting.
            patience: with workers that do not answer.
            verify: share of the gradient answers that are computed twice and compared.
        """
        self.members = members
        self.leaves = 0
        self.repeated = 0
        self.dropped = 0
        self._exchange = exchange
        self._clock = clock
        self._interrupted = interrupted
        self._patience = patience or Patience()
        self._verify = verify
        self._usual: float | None = None
        self._plan_version = 0
        # What each worker has not answered yet, of this round and of older ones: when it was asked, and `Asked.queue`.
        self._asked: dict[WorkerId, dict[Request, tuple[float, int]]] = {}
        # With which programs.
        self._have_compiled: set[tuple[WorkerId, str]] = set()
        self._paused_s = 0.0
        self._unit_seconds: dict[type[Request], deque[float]] = {}

    def run(
        self, units: int, request: MakeRequest, *, repeatable: bool = True, rehearsal: bool = False
    ) -> Sequence[Reply]:
        """Answers that together hold every unit 0 … units − 1 exactly once.

        Whatever a worker does not answer, others do within the round. Answers to anything not asked in this round are dropped.

        Args:
            units: leaves, blocks or chunks.
            request: makes the request of (plan version, start, stop).
            repeatable: whether two workers may compute the same unit at a time.
            rehearsal: only to learn what a unit takes, before workers are asked for many; its answers count for nothing.

        Raises:
            InterruptedJobError: the user asked to stop; nothing of this round is kept.
            LeafError: a computation raised, and again when it was repeated.
            WorkersLostError: there are not enough workers, and none are to be had.
            JobError: workers do not agree on what a leaf's gradient is.
        """
        sample = request(self._plan_version, 0, units)
        self.members.step = sample.step
        if self.members.restless:
            self._await_members()
        opened = OpenRound(units, self._usual, self._verify)
        current = _Current(opened, request, repeatable, self._plan_version + 1, _weight(sample))
        started, paused_s = self._clock(), self._paused_s
        longest = self._dispatch(current, started)
        while not opened.complete:
            if self._interrupted():
                raise InterruptedJobError("interrupted")
            events = self._receive()
            # All of them, whatever the first ones say.
            quiet = [self._take(event, current) for event in events]
            if not events or not all(quiet):
                self._see_to(current)
        ended = self._clock()
        if isinstance(sample, GradientRequest) and not rehearsal:
            self._usual = still_usual(opened.largest, self._usual)
            self.leaves += units
            self.repeated += current.repeated
        if current.troubled_at is not None:
            self.members.note("recovered", None, "", current.repeated, ended - current.troubled_at)
        elif self._paused_s == paused_s:
            recent = self._unit_seconds.setdefault(type(sample), deque(maxlen=_REMEMBERED))
            recent.append((ended - started) / longest)
        return opened.replies

    def _dispatch(self, current: _Current, now: float) -> int:
        """Begins a round; returns the longest queue of a worker in it."""
        if any(self._asked.values()):
            self._look(current, now)
            asked = [each for requests in self._asked.values() for each in requests.items()]
            return max(
                (queue for request, (_, queue) in asked if request.plan_version >= current.first_version),
                default=current.weight,
            )
        # What `_perform` would do, without what only disturbed rounds need: this is done twice a step.
        self._plan_version += 1
        longest = current.weight
        for worker, ranges in plan([(0, current.opened.units)], self.members.able).items():
            requests = self._asked.setdefault(worker, {})
            queued = 0
            for start, stop in ranges:
                queued += (stop - start) * current.weight
                request = current.request(self._plan_version, start, stop)
                requests[request] = (now, queued)
                self._exchange.send(worker, request)
            longest = max(longest, queued)
        return longest

    def _await_members(self) -> None:
        """Lets workers come and go; waits until there are enough of them."""
        self.members.tend(self._busy)
        while not self.members.enough:
            if self._interrupted():
                raise InterruptedJobError("interrupted")
            for event in self._receive():
                self._take(event, None)
            self.members.tend(self._busy)

    def _receive(self) -> Sequence[Event]:
        """What arrived; a pause of this process itself is not held against anybody."""
        before = self._clock()
        events = self._exchange.receive(_POLL_S)
        pause = self._clock() - before
        if pause > _POLL_S + _STOPPED_S:
            self._paused_s += pause
            self.members.forgive(pause)
            for requests in self._asked.values():
                for request, (at, queue) in requests.items():
                    requests[request] = (at + pause, queue)
        return events

    def _take(self, event: Event, current: _Current | None) -> bool:
        """Enters an event; False if it calls for a decision."""
        match event:
            case WorkerJoined():
                self._have_compiled -= {(event.worker, program) for program in _LATE_COMPILED.values()}
                self.members.joined(event)
            case WorkerLeaving():
                self.members.leaving(event)
            case WorkerLost():
                self._asked.pop(event.worker, None)
                if current:
                    current.opened.mourn(event.worker)
                self.members.lost(event)
            case RequestFailed():
                if opened := self._strike(event.worker, event.request, current):
                    opened.fail(event)
            case _:
                self.members.answered.add(event.worker)
                if program := _LATE_COMPILED.get(type(event.request)):
                    self._have_compiled.add((event.worker, program))
                opened = self._strike(event.worker, event.request, current)
                if opened and opened.answer(event):
                    return not opened.doubtful
                self.dropped += 1
        return False

    def _strike(self, worker: WorkerId, request: Request, current: _Current | None) -> OpenRound | None:
        """Strikes a request off what a worker was asked; the round its answer belongs to, if that is still open."""
        was_asked = self._asked.get(worker, {}).pop(request, None) is not None
        return current.opened if was_asked and current and request.plan_version >= current.first_version else None

    def _see_to(self, current: _Current) -> None:
        """Decides what is to be done about whatever is not as it should be."""
        for worker, reason in current.opened.distrusted:
            # It may have died in the meantime, and another be starting under its number.
            if worker in self.members.able:
                self.members.kill(worker, reason)
        current.opened.distrusted.clear()
        if self.members.restless:
            self.members.tend(self._busy)
        if not current.opened.complete:
            self._look(current, self._clock())

    def _look(self, current: _Current, now: float) -> None:
        """Has the plan decide, and does what it says."""
        opened = current.opened
        recent = self._unit_seconds.get(type(current.request(0, 0, 1)))
        asked = [
            Asked(
                worker=worker,
                start=request.start,
                stop=request.stop,
                at=at,
                queue=queue,
                current=request.plan_version >= current.first_version,
                first=type(request) in _LATE_COMPILED
                and (worker, _LATE_COMPILED[type(request)]) not in self._have_compiled,
            )
            for worker, requests in self._asked.items()
            for request, (at, queue) in requests.items()
        ]
        state = RoundState(
            units=opened.units,
            done=opened.answered,
            asked=asked,
            again=opened.again(),
            unit_seconds=statistics.median(recent) if recent else None,
            repeatable=current.repeatable,
            begins=self._plan_version < current.first_version,
        )
        self._perform(decide(now, self.members.able, state, self._patience), current, now)

    def _perform(self, decisions: Iterable[Decision], current: _Current, now: float) -> None:
        version = self._plan_version + 1
        for decision in decisions:
            if not isinstance(decision, Ask):
                if self.members.kill(decision.worker, decision.reason):
                    current.troubled_at = current.troubled_at or now
                continue
            self._plan_version = version
            request = current.request(version, decision.start, decision.stop)
            requests = self._asked.setdefault(decision.worker, {})
            queued = sum((other.stop - other.start) * _weight(other) for other in requests) if requests else 0
            requests[request] = (now, queued + (decision.stop - decision.start) * current.weight)
            if decision.repeats:
                current.troubled_at = current.troubled_at or now
                current.repeated += decision.stop - decision.start
            self._exchange.send(decision.worker, request)

    @property
    def _busy(self) -> frozenset[WorkerId]:
        return frozenset(worker for worker, requests in self._asked.items() if requests)


def _weight(request: Request) -> int:
    """What a unit costs, in units of a size that does not change from round to round."""
    return request.batch if isinstance(request, BatchDistancesRequest) else 1
