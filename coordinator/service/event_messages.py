"""Events and summaries of jobs as messages. Storage keeps them as JSON, so that neither rules the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from shardsgd.coordinator.service.jobs import Event
from shardsgd.coordinator.service.watch import Left
from shardsgd.protos import training_pb2 as pb


def event_message(event: Event | Left) -> pb.WatchJobResponse:
    """An event, or the note that some were left out, as a watcher is sent it."""
    if isinstance(event, Left):
        thinned = pb.Thinned(first_sequence=event.first_sequence, count=event.sequence - event.first_sequence + 1)
        return pb.WatchJobResponse(sequence=event.sequence, time=timestamp(event.at), thinned=thinned)
    message = pb.WatchJobResponse(sequence=event.sequence, time=timestamp(event.at))
    match event.kind:
        case "state":
            message.state_change.state = state_number(event.body["state"])
            message.state_change.reason = event.body["reason"]
            if event.body.get("summary"):
                message.state_change.summary.CopyFrom(summary_message(event.body["summary"]))
        case "metrics":
            message.metrics.CopyFrom(metrics_message(event.body))
        case "validation":
            message.validation.CopyFrom(pb.Validation(**_set(event.body)))
        case "incident":
            message.incident.CopyFrom(pb.Incident(**_set(event.body)))
        case "log":
            message.log_line.text = event.body["text"]
    return message


def metrics_message(body: Mapping[str, Any]) -> pb.Metrics:
    """A step."""
    return pb.Metrics(**_set(body))


def summary_message(summary: Mapping[str, Any]) -> pb.Summary:
    """The object of summary.json."""
    validation = summary["validation"] or {}
    noise = summary["gradient_noise"]
    fields = pb.Summary.DESCRIPTOR.fields
    # An older version's summary, which the store may hold, lacks some.
    same = {field.name: part[field.name] for part in (summary, noise) for field in fields if field.name in part}
    return pb.Summary(
        **_set(same),
        **_set({"validation_loss": validation.get("loss"), "validation_accuracy": validation.get("accuracy")}),
        json=json.dumps(summary, allow_nan=False),
    )


def state_number(state: str) -> pb.JobState:
    """A state's number in messages."""
    return cast("pb.JobState", pb.JobState.Value(f"JOB_STATE_{state}"))


def timestamp(seconds: float) -> Timestamp:
    """Unix seconds as a message, to the microsecond."""
    micros = round(seconds * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
