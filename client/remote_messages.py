"""Messages of the service as what its client hands out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from shardsgd.coordinator.records import (
    GradientNoise,
    Incident,
    Pace,
    StepRecord,
    Summary,
    ValidationRecord,
    VariancePoint,
)
from shardsgd.coordinator.service.states import Intent, JobState
from shardsgd.errors import RemoteError
from shardsgd.protos import training_pb2 as pb
from shardsgd.remote_events import (
    IncidentEvent,
    JobEvent,
    LogEvent,
    StateEvent,
    StepEvent,
    ThinnedEvent,
    ValidationEvent,
)
from shardsgd.remote_info import JobInfo, JobProgress, OwnerLimits, ServerInfo


def job_info(job: pb.Job) -> JobInfo:
    """A job.

    Raises:
        RemoteError: it is of a version of the service that this client does not understand.
    """
    summary = _summary_object(job.summary) if job.HasField("summary") else None
    return JobInfo(
        job_id=job.job_id,
        name=job.spec.name,
        state=_state(job.state),
        reason=job.reason,
        intent=_intent(job.intent),
        owner=job.owner,
        priority=job.priority,
        created_at=_time(job.create_time),
        started_at=_time(job.start_time) if job.HasField("start_time") else None,
        ended_at=_time(job.end_time) if job.HasField("end_time") else None,
        last_sequence=job.last_sequence,
        progress=JobProgress(_step(job.progress), _pace(job.progress)) if job.HasField("progress") else None,
        summary=None if summary is None else summary_of(summary),
        summary_json=summary,
        queue_position=job.queue_position if job.HasField("queue_position") else None,
        spec_message=job.spec,
    )


def job_event(message: pb.WatchJobResponse) -> JobEvent | None:
    """An event; None if it is one that this version does not know.

    Raises:
        RemoteError: its content is of a version that this client does not understand.
    """
    at = (message.sequence, _time(message.time))
    match message.WhichOneof("event"):
        case "state_change":
            change = message.state_change
            summary = summary_of(_summary_object(change.summary)) if change.HasField("summary") else None
            return StateEvent(*at, _state(change.state), change.reason, summary)
        case "metrics":
            return StepEvent(*at, _step(message.metrics), _pace(message.metrics), message.metrics.steps_left_out)
        case "validation":
            held_out = message.validation
            accuracy = _given(held_out, "accuracy")
            return ValidationEvent(*at, ValidationRecord(held_out.step, held_out.epoch, held_out.loss, accuracy))
        case "incident":
            said = message.incident
            worker, seconds = _given(said, "worker"), _given(said, "seconds")
            return IncidentEvent(*at, Incident(said.step, said.kind, worker, said.reason, said.leaves, seconds))
        case "log_line":
            return LogEvent(*at, message.log_line.text)
        case "thinned":
            return ThinnedEvent(*at, message.thinned.first_sequence, message.thinned.count)
        case _:
            return None


def summary_of(given: Mapping[str, Any]) -> Summary:
    """The object of summary.json as a summary; what this version does not know is left out.

    Raises:
        RemoteError: it lacks what this version needs.
    """
    known = {field.name for field in fields(Summary)}
    try:
        noise = given["gradient_noise"]
        variance = tuple(VariancePoint(**{name: point[name] for name in _POINT}) for point in noise["variance"])
        intervals = {name: noise.get(name) for name in _INTERVALS}
        measured = GradientNoise(**{name: noise[name] for name in _NOISE}, variance=variance, **intervals)
        values = {name: value for name, value in given.items() if name in known}
        return Summary(**values | {"gradient_noise": measured})
    except (KeyError, TypeError) as error:
        raise _other_version(f"a summary ({error})") from None


def server_info(message: pb.GetServerInfoResponse) -> ServerInfo:
    """A service."""
    names = ("version", "jaxlib_version", "workers_total", "workers_free", "jobs_queued", "jobs_running", "owner")
    limits = {field.name: getattr(message.limits, field.name) or None for field in fields(OwnerLimits)}
    return ServerInfo(
        **{name: getattr(message, name) for name in names},
        limits=OwnerLimits(**limits),
        uptime_s=message.uptime.ToTimedelta().total_seconds(),
    )


_POINT = ("rows", "measured", "predicted")
_NOISE = ("noise_trace", "gradient_norm_squared", "noise_scale")
# Of these; a service of an older version does not tell them.
_INTERVALS = tuple(f"{name}_{end}" for name in _NOISE for end in ("low", "high"))


def _summary_object(message: pb.Summary) -> dict[str, Any]:
    try:
        given = json.loads(message.json)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise _other_version("a summary")
    return given


def _step(metrics: pb.Metrics) -> StepRecord:
    return StepRecord(
        step=metrics.step,
        epoch=metrics.epoch,
        loss=metrics.loss,
        learning_rate=metrics.learning_rate,
        gradient_norm=metrics.gradient_norm,
        noise_trace=_given(metrics, "noise_trace"),
        noise_scale=_given(metrics, "noise_scale"),
        step_seconds=metrics.step_seconds,
        noise_norm_squared=_given(metrics, "noise_norm_squared"),
        noise_scale_low=_given(metrics, "noise_scale_low"),
        noise_scale_high=_given(metrics, "noise_scale_high"),
        gain=_given(metrics, "gain"),
    )


def _pace(metrics: pb.Metrics) -> Pace:
    return Pace(metrics.samples_per_second, _given(metrics, "fraction_done"), _given(metrics, "eta_seconds"))


def _given(message: Any, name: str) -> Any:
    """A field, None where it is not set."""
    return getattr(message, name) if message.HasField(name) else None


def _state(number: int) -> JobState:
    try:
        return JobState(pb.JobState.Name(number).removeprefix("JOB_STATE_"))
    except ValueError:
        raise _other_version(f"a job in state {number}") from None


def _intent(number: int) -> Intent:
    try:
        return Intent(pb.Intent.Name(number).removeprefix("INTENT_"))
    except ValueError:
        raise _other_version(f"a job with intent {number}") from None


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _other_version(what: str) -> RemoteError:
    return RemoteError(f"the service sent {what} that this client does not understand: it is of another version")
