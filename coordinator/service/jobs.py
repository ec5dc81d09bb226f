"""What the service remembers of a job, and what may be wrong with asking for it.

ShardsgdError
├── InputError
│   ├── StoreError          the store cannot be used
│   ├── RequestReusedError  a request_id made another job
│   ├── QuotaError          the owner has as much as is allowed
│   ├── JobGoneError        there is no such job
│   └── DatasetGoneError    the owner has no such dataset
├── StaleError              the job does not stand where it would have to
└── DiskFullError           nothing more can be kept
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from shardsgd.coordinator.service.states import ENDED, Intent, JobState
from shardsgd.errors import InputError, ShardsgdError

EventKind = Literal["state", "metrics", "validation", "incident", "log"]


@dataclass(frozen=True)
class NewJob:
    """A job as it is accepted.

    Attributes:
        job_id: made by the service, never used before.
        owner: who submitted it.
        request_id: the submitter's name for the request; empty: none.
        fingerprint: of all that was asked for: equal for equal requests only.
        spec_toml: the resolved spec.
        priority: higher ones are started first.
        workers: how many it asks for.
        created_at: when it was accepted, in Unix seconds.
    """

    job_id: str
    owner: str
    request_id: str
    fingerprint: str
    spec_toml: str
    priority: int
    workers: int
    created_at: float


@dataclass(frozen=True)
class JobRecord(NewJob):
    """A job as it stands.

    Attributes:
        state: where it stands.
        reason: why, in words; empty where the state says it all.
        intent: what its user wants of it.
        started_at: when it was RUNNING for the first time, in Unix seconds; None before.
        ended_at: when it ended, likewise.
        last_sequence: number of its newest event.
        runs: how many times it has been STARTING.
        progress: body of its newest event of metrics; None before.
        summary: how it ended, or where it paused; None before.
        scale: workers that were asked for later than with the spec; None: none.
    """

    state: JobState = JobState.QUEUED
    reason: str = ""
    intent: Intent = Intent.RUN
    started_at: float | None = None
    ended_at: float | None = None
    last_sequence: int = 0
    runs: int = 0
    progress: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    scale: int | None = None

    def in_state(self, state: JobState, at: float) -> JobRecord:
        """The job once it has come to another state, which says it all.

        Args:
            state: the new one.
            at: since when, in Unix seconds.
        """
        return replace(
            self,
            state=state,
            reason="",
            started_at=at if state is JobState.RUNNING and self.started_at is None else self.started_at,
            ended_at=at if state in ENDED else None,
            runs=self.runs + (state is JobState.STARTING),
        )


@dataclass(frozen=True)
class NewEvent:
    """Something that happened to a job.

    Attributes:
        kind: which message of training.proto it is.
        at: when, in Unix seconds.
        body: the fields of that message; a log line's is `{"text": …}`, a change of state's `{"state", "reason", "summary"}`.
    """

    kind: EventKind
    at: float
    body: dict[str, Any]


@dataclass(frozen=True)
class Event(NewEvent):
    """The same, as it is recorded.

    Attributes:
        sequence: its number among the job's: 1, 2, 3, … without gap.
    """

    sequence: int


@dataclass(frozen=True)
class Position:
    """How far the recorded events of a job go: each the largest `step` of an event of that kind, −1 without any.

    Attributes:
        step: of metrics.
        validation: of validations.
        incident: of incidents.
    """

    step: int = -1
    validation: int = -1
    incident: int = -1


class StoreError(InputError):
    """The job store cannot be opened or used: locked, damaged, of a newer version, or not to be written."""


class DiskFullError(ShardsgdError):
    """The disk has no room for what is to be kept; what was there is as it was."""


class RequestReusedError(InputError):
    """A request_id comes again, for another job than the first time.

    Attributes:
        job_id: of the job that it made the first time.
    """

    def __init__(self, request_id: str, job_id: str) -> None:
        super().__init__(request_id, job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"request_id {self.args[0]!r} was used for another request, which made job {self.job_id}: take a new one"


class QuotaError(InputError):
    """An owner would have more than is allowed.

    Attributes:
        what: what of, in words, with its unit.
        used: what the owner has.
        limit: what the owner may have.
    """

    def __init__(self, what: str, used: int, limit: int) -> None:
        super().__init__(what, used, limit)
        self.what = what
        self.used = used
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.what}: there are {self.used} of at most {self.limit}"


class JobGoneError(InputError):
    """There is no such job, or there is none any more.

    Attributes:
        job_id: that was asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {self.job_id}"


class DatasetGoneError(InputError):
    """The owner has no such dataset, or has none any more.

    Attributes:
        sha256: of its bytes.
    """

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256

    def __str__(self) -> str:
        return f"there is no dataset sha256:{self.sha256}: it was never uploaded, or was removed; upload it again"


class StaleError(ShardsgdError):
    """A job does not stand where a change or an event of it would have to find it. Nothing was changed.

    Attributes:
        record: the job as it stands.
    """

    def __init__(self, record: JobRecord) -> None:
        super().__init__(record)
        self.record = record

    def __str__(self) -> str:
        return f"job {self.record.job_id} is {self.record.state}"
