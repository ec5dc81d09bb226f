"""What happens to a job of a service, as typed events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shardsgd.coordinator.records import Incident, Pace, StepRecord, Summary, ValidationRecord
from shardsgd.coordinator.service.states import ENDED, JobState


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        sequence: its number among the job's events: 1, 2, 3, …
        time: when it happened, in UTC.
    """

    sequence: int
    time: datetime


@dataclass(frozen=True)
class StateEvent(JobEvent):
    """The job stands elsewhere.

    Attributes:
        state: where.
        reason: why, in words; empty where the state says it all.
        summary: how it stands, once it has ended or is paused; None else.
    """

    state: JobState
    reason: str
    summary: Summary | None

    @property
    def ended(self) -> bool:
        """Whether this is the job's last event."""
        return self.state in ENDED


@dataclass(frozen=True)
class StepEvent(JobEvent):
    """A step is done.

    Attributes:
        record: its figures.
        pace: how fast the run is and how much is left.
        steps_left_out: steps before it, since the last such event, that have no event of their own.
    """

    record: StepRecord
    pace: Pace
    steps_left_out: int


@dataclass(frozen=True)
class ValidationEvent(JobEvent):
    """The held-out rows were evaluated.

    Attributes:
        record: its figures.
    """

    record: ValidationRecord


@dataclass(frozen=True)
class IncidentEvent(JobEvent):
    """Something happened to the workers.

    Attributes:
        record: what.
    """

    record: Incident


@dataclass(frozen=True)
class LogEvent(JobEvent):
    """A line for the user.

    Attributes:
        text: the line.
    """

    text: str


@dataclass(frozen=True)
class ThinnedEvent(JobEvent):
    """Steps were done of which this watcher is not told more, because it was too slow. The number is that of the last one.

    Attributes:
        first_sequence: number of the first.
        count: how many.
    """

    first_sequence: int
    count: int
