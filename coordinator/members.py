"""The workers of a run as it goes: starts replacements, lets workers go, and keeps the book of what happened to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shardsgd.coordinator.records import Incident
from shardsgd.coordinator.staffing import (
    Dismiss,
    Fail,
    GiveUp,
    Limits,
    Roster,
    Start,
    forgiven,
    going,
    gone,
    joined,
    lost,
    staff,
)
from shardsgd.errors import WorkersLostError
from shardsgd.workers.exchange import Exchange, WorkerId, WorkerJoined, WorkerLeaving, WorkerLost


class Members:
    """Does what `staffing` decides.

    Attributes:
        able: workers that can be asked, ascending.
        answered: those of them that have answered something.
        incidents: what happened since the list was last emptied.
        step: that incidents are said to have happened in.
        losses: workers lost so far, over all sessions of the run.
    """

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        clock: Callable[[], float],
        *,
        target: int,
        wanted: Callable[[], int | None] = lambda: None,
        losses: int = 0,
    ) -> None:
        """Begins with the workers that an exchange has.

        Args:
            exchange: over which they are asked.
            limits: of the job.
            clock: in seconds.
            target: how many workers there should be.
            wanted: polled: how many there should be instead; None while there is no such wish.
            losses: of earlier sessions.
        """
        self.able = tuple(sorted(exchange.workers))
        self.answered: set[WorkerId] = set()
        self.incidents: list[Incident] = []
        self.step = 0
        self.losses = losses
        self._exchange = exchange
        self._limits = limits
        self._clock = clock
        self._wanted = wanted
        self._usual_target = target
        self._roster = Roster(target=target, members=frozenset(self.able))
        self._reasons: dict[WorkerId, str] = {}
        self._last_loss = ""

    @property
    def enough(self) -> bool:
        """Whether a step may begin."""
        return len(self.able) >= self._limits.least

    @property
    def restless(self) -> bool:
        """Whether there may be anything to `tend` to."""
        return not self._roster.settled or self._target != self._roster.target

    def tend(self, busy: frozenset[WorkerId] = frozenset()) -> None:
        """Starts who is missing and lets go who is too many.

        Args:
            busy: workers that have not answered all they were asked.

        Raises:
            WorkersLostError: the limits do not allow to go on.
        """
        if self._target != self._roster.target:
            self._change(replace(self._roster, target=self._target))
        now = self._clock()
        for decision in staff(now, self._roster, self._limits):
            match decision:
                case Start(worker, _):
                    self._change(replace(self._roster, starting={**self._roster.starting, worker: now}))
                    self._exchange.start(worker)
                case Dismiss(worker, reason):
                    self._retire(worker, reason)
                case GiveUp(worker, reason):
                    self.kill(worker, reason)
                case Fail(reason):
                    raise WorkersLostError(reason + (f"; the last loss: {self._last_loss}" if self._last_loss else ""))
        for worker in self._roster.going - busy - self._reasons.keys():
            self._exchange.dismiss(worker)
            self._change(gone(self._roster, worker))
            self.answered.discard(worker)

    def forgive(self, pause: float) -> None:
        """Takes no account of a pause of this process itself, in seconds."""
        self._change(forgiven(self._roster, pause))

    def joined(self, event: WorkerJoined) -> None:
        """A worker can be asked from now on."""
        self._change(joined(self._roster, event.worker, self._clock(), self._limits))
        self.note("joined", event.worker, "")

    def leaving(self, event: WorkerLeaving) -> None:
        """A worker was given notice; it is replaced, and costs nothing."""
        self._retire(event.worker, "it was given notice")

    def lost(self, event: WorkerLost) -> None:
        """A worker is dead."""
        worker = event.worker
        reason = self._reasons.pop(worker, None)
        notified = reason is None and worker in self._roster.going
        answered = worker in self.answered
        starting = worker in self._roster.starting
        self._change(lost(self._roster, worker, self._clock(), self._limits, answered=answered, notified=notified))
        self.answered.discard(worker)
        if notified:
            return
        # Recoveries are of workers that had joined.
        self.losses += not starting
        self._last_loss = f"worker {worker}: {reason or event.reason}"
        self.note("start failed" if starting else "lost", worker, reason or event.reason)

    def kill(self, worker: WorkerId, reason: str) -> bool:
        """Ends a worker that hangs or is not to be trusted; that it is lost will be received. False if it is dying already."""
        roster = self._roster
        if worker in self._reasons or worker not in roster.members | roster.going | roster.starting.keys():
            return False
        self._reasons[worker] = reason
        self._change(going(roster, worker, self._clock(), self._limits))
        self._exchange.kill(worker)
        return True

    def note(
        self, kind: str, worker: WorkerId | None, reason: str, leaves: int = 0, seconds: float | None = None
    ) -> None:
        """Enters an incident in the book."""
        self.incidents.append(Incident(self.step, kind, worker, reason, leaves, seconds))

    @property
    def _target(self) -> int:
        return max(self._limits.least, min(self._wanted() or self._usual_target, self._limits.most))

    def _retire(self, worker: WorkerId, reason: str) -> None:
        if worker in self._roster.members:
            self._change(going(self._roster, worker, self._clock(), self._limits))
            self.note("left", worker, reason)

    def _change(self, roster: Roster) -> None:
        self._roster = roster
        self.able = tuple(sorted(roster.members))
