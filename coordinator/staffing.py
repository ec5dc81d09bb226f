"""Who works for a job: when a worker is started, let go or given up, and when the job fails for want of workers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shardsgd.workers.exchange import WorkerId


@dataclass(frozen=True)
class Limits:
    """What a job allows.

    Attributes:
        least: workers without which no step begins.
        most: numbers of workers are below this.
        wait_seconds: how long there may be fewer than the least.
        losses: how many workers may be lost; None: any number.
        start_seconds: how long a worker may take to start.
    """

    least: int = 1
    most: int = 1
    wait_seconds: float = 60.0
    losses: int | None = None
    start_seconds: float = 120.0


@dataclass(frozen=True)
class Roster:
    """Who there is.

    Attributes:
        target: how many workers there should be.
        members: those that can be asked.
        starting: those that have not joined yet, and since when.
        going: those that have been given notice, or are being killed: not asked any more, their numbers not free yet.
        losses: workers lost so far.
        failures: how many of the last were lost before they had answered anything.
        retry_at: before this no worker is started.
        short_since: since when there are fewer members than the least; None while there are not.
    """

    target: int
    members: frozenset[WorkerId]
    starting: Mapping[WorkerId, float] = field(default_factory=dict)
    going: frozenset[WorkerId] = frozenset()
    losses: int = 0
    failures: int = 0
    retry_at: float = 0.0
    short_since: float | None = None

    @property
    def settled(self) -> bool:
        """Whether nobody comes, goes or is missing."""
        return len(self.members) == self.target and not self.starting and not self.going


@dataclass(frozen=True)
class Start:
    """Start a worker of this number."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True)
class Dismiss:
    """Ask this worker nothing more, and let it go."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True)
class GiveUp:
    """Kill a worker that does not get started."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True)
class Fail:
    """Fail the job."""

    reason: str


Staffing = Start | Dismiss | GiveUp | Fail


def staff(now: float, roster: Roster, limits: Limits) -> Sequence[Staffing]:
    """What to do about the workers between two rounds, or while a round waits for some.

    Args:
        now: by the clock that the roster's times are by.
        roster: who there is.
        limits: of the job.
    """
    if limits.losses is not None and roster.losses > limits.losses:
        return [Fail(f"{roster.losses} workers were lost; workers.max_losses = {limits.losses}")]
    if roster.short_since is not None and now - roster.short_since >= limits.wait_seconds:
        return [
            Fail(
                f"{len(roster.members) or 'no'} worker is left to compute with, workers.min = {limits.least}, and no other "
                f"could be had within workers.wait_seconds = {limits.wait_seconds:g}"
            )
        ]
    overdue = [worker for worker, since in roster.starting.items() if now - since >= limits.start_seconds]
    decisions: list[Staffing] = [GiveUp(worker, f"not ready after {limits.start_seconds:g} s") for worker in overdue]
    vacancies = roster.target - len(roster.members) - len(roster.starting)
    if vacancies > 0 and now >= roster.retry_at:
        taken = roster.members | roster.starting.keys() | roster.going
        free = [worker for worker in range(limits.most) if worker not in taken]
        decisions += [Start(worker, f"{roster.target} workers are wanted") for worker in free[:vacancies]]
    excess = len(roster.members) - roster.target
    if excess > 0:
        decisions += [
            Dismiss(worker, f"{roster.target} workers are wanted") for worker in sorted(roster.members)[-excess:]
        ]
    return decisions


_RETRY_S, _LONGEST_RETRY_S = 0.25, 30.0


def joined(roster: Roster, worker: WorkerId, now: float, limits: Limits) -> Roster:
    """A worker that was starting is a member."""
    starting = {other: since for other, since in roster.starting.items() if other != worker}
    return _short(replace(roster, members=roster.members | {worker}, starting=starting), now, limits)


def going(roster: Roster, worker: WorkerId, now: float, limits: Limits) -> Roster:
    """A worker is asked nothing more: it has been given notice, or is being killed."""
    if worker not in roster.members:
        return roster
    return _short(replace(roster, members=roster.members - {worker}, going=roster.going | {worker}), now, limits)


def gone(roster: Roster, worker: WorkerId) -> Roster:
    """A worker that was let go."""
    return replace(roster, going=roster.going - {worker})


def lost(roster: Roster, worker: WorkerId, now: float, limits: Limits, *, answered: bool, notified: bool) -> Roster:
    """A worker is dead. One that follows others that had never answered is replaced after a pause, which doubles.

    Args:
        roster: before.
        worker: which.
        now: by the clock.
        limits: of the job.
        answered: whether it ever answered anything.
        notified: whether it had been given notice, so that its loss is no failure.
    """
    failures = roster.failures if notified else 0 if answered else roster.failures + 1
    pause = min(_LONGEST_RETRY_S, _RETRY_S * 2.0 ** min(failures - 1, 10)) if failures else 0.0
    after = replace(
        roster,
        members=roster.members - {worker},
        starting={other: since for other, since in roster.starting.items() if other != worker},
        going=roster.going - {worker},
        losses=roster.losses + (not notified),
        failures=failures,
        retry_at=max(roster.retry_at, now + pause),
    )
    return _short(after, now, limits)


def forgiven(roster: Roster, pause: float) -> Roster:
    """After a pause of this process itself, which is held against nobody."""
    return replace(
        roster,
        starting={worker: since + pause for worker, since in roster.starting.items()},
        retry_at=roster.retry_at + pause,
        short_since=None if roster.short_since is None else roster.short_since + pause,
    )


def _short(roster: Roster, now: float, limits: Limits) -> Roster:
    if len(roster.members) >= limits.least:
        return replace(roster, short_since=None)
    return roster if roster.short_since is not None else replace(roster, short_since=now)
