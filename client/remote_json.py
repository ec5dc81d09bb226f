"""Jobs, events and services as objects for programs: what `--json` prints."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from shardsgd.coordinator.records import as_json, finite
from shardsgd.errors import SpecError
from shardsgd.remote_events import (
    IncidentEvent,
    JobEvent,
    LogEvent,
    StateEvent,
    StepEvent,
    ThinnedEvent,
    ValidationEvent,
)
from shardsgd.remote_info import JobInfo, JobProgress, ServerInfo


def job_object(info: JobInfo) -> dict[str, Any]:
    """A job."""
    return {
        "job_id": info.job_id,
        "name": info.name,
        "state": info.state,
        "reason": info.reason,
        "intent": info.intent,
        "owner": info.owner,
        "priority": info.priority,
        "created_at": _time(info.created_at),
        "started_at": _time(info.started_at),
        "ended_at": _time(info.ended_at),
        "queue_position": info.queue_position,
        "last_sequence": info.last_sequence,
        "progress": None if info.progress is None else _progress(info.progress),
        "summary": info.summary_json,
        "spec": _spec(info),
    }


def event_object(event: JobEvent) -> dict[str, Any]:
    """An event: its number, its time, its kind and, by the name of the kind, its content."""
    head = {"sequence": event.sequence, "time": _time(event.time)}
    match event:
        case StateEvent():
            summary = None if event.summary is None else as_json(event.summary)
            return head | {"event": "state", "state": event.state, "reason": event.reason, "summary": summary}
        case StepEvent():
            progress = _progress(JobProgress(event.record, event.pace))
            return head | {"event": "step"} | progress | {"steps_left_out": event.steps_left_out}
        case ValidationEvent():
            return head | {"event": "validation"} | _finite(asdict(event.record))
        case IncidentEvent():
            return head | {"event": "incident"} | _finite(asdict(event.record))
        case LogEvent():
            return head | {"event": "log", "text": event.text}
        case ThinnedEvent():
            return head | {"event": "thinned", "first_sequence": event.first_sequence, "count": event.count}
    raise AssertionError(f"an event of no kind: {event}")


def server_object(info: ServerInfo) -> dict[str, Any]:
    """A service."""
    return asdict(info)


def _progress(progress: JobProgress) -> dict[str, Any]:
    # What the service does not tell of a step is in metrics.jsonl only.
    told = {name: value for name, value in asdict(progress.record).items() if name not in _UNTOLD}
    return _finite(told | asdict(progress.pace))


_UNTOLD = frozenset(f"{part}_seconds" for part in ("gather", "leaf", "reduce", "exchange", "update", "idle")) | {
    "layer_norms"
}


def _spec(info: JobInfo) -> dict[str, Any] | None:
    try:
        return info.spec.model_dump(mode="json", exclude_none=True)
    except SpecError:  # of a version that knows other specs
        return None


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = finite(fields)
    return checked
