"""Jobs and services as they stand, as a client sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shardsgd.coordinator.records import Pace, StepRecord, Summary
from shardsgd.coordinator.service.states import ENDED, Intent, JobState
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec import JobSpec
from shardsgd.spec_messages import spec_from_message

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class JobProgress:
    """How far a job has come.

    Attributes:
        record: the last step's figures.
        pace: how fast the run is and how much is left.
    """

    record: StepRecord
    pace: Pace


@dataclass(frozen=True)
class JobInfo:
    """A job as it stood when it was asked for.

    Attributes:
        job_id: made by the service.
        name: of its spec.
        state: where it stands.
        reason: why it stands there, in words; empty where the state says it all.
        intent: what its user wants of it; its state follows.
        owner: who submitted it.
        priority: higher ones are started first, −100 … 100.
        created_at: when it was accepted, in UTC.
        started_at: when it began to train for the first time; None before.
        ended_at: when it ended; None before.
        last_sequence: number of its newest event.
        progress: how far it has come; None before its first step.
        summary: how it ended, or where it paused; None before.
        summary_json: the same as the object of summary.json; None before.
        queue_position: jobs that are started before it; None unless it is QUEUED.
        spec_message: its spec as it came.
    """

    job_id: str
    name: str
    state: JobState
    reason: str
    intent: Intent
    owner: str
    priority: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    last_sequence: int
    progress: JobProgress | None
    summary: Summary | None
    summary_json: Mapping[str, Any] | None = field(repr=False)
    queue_position: int | None
    spec_message: pb.JobSpec = field(repr=False)

    @cached_property
    def spec(self) -> JobSpec:
        """Its spec as it runs, every field set.

        Raises:
            SpecError: the service is of a version that knows other specs.
        """
        return spec_from_message(self.spec_message)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class RemoteResult:
    """What a job of a service has learned.

    Attributes:
        job_id: whose it is.
        summary: how it ended.
        parameters: final arrays by name, such as `layer0.weight` [features, units].
    """

    job_id: str
    summary: Summary
    parameters: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Download:
    """A file of parameters that has arrived whole.

    Attributes:
        size_bytes: of the file.
        sha256: of the file.
        parameters_sha256: of the arrays in it, as in summary.json.
    """

    size_bytes: int
    sha256: str
    parameters_sha256: str


@dataclass(frozen=True)
class OwnerLimits:
    """What one owner may have. None: any number.

    Attributes:
        open_jobs: jobs that have not ended.
        workers: workers of the jobs that train at a time.
        dataset_bytes: bytes of datasets.
        upload_bytes: bytes of one dataset.
    """

    open_jobs: int | None
    workers: int | None
    dataset_bytes: int | None
    upload_bytes: int | None


@dataclass(frozen=True)
class ServerInfo:
    """A service as it stands.

    Attributes:
        version: of its shardsgd.
        jaxlib_version: of its jaxlib: bits are promised per version.
        workers_total: workers that may compute at a time, over all jobs.
        workers_free: of these, workers that no job holds now.
        jobs_queued: jobs that wait.
        jobs_running: jobs that train or start.
        owner: who the caller is.
        limits: what the caller may have.
        uptime_s: how long it has been up, in seconds.
    """

    version: str
    jaxlib_version: str
    workers_total: int
    workers_free: int
    jobs_queued: int
    jobs_running: int
    owner: str
    limits: OwnerLimits
    uptime_s: float
