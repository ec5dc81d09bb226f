"""Jobs as messages."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from shardsgd.coordinator.service.event_messages import metrics_message, state_number, summary_message, timestamp
from shardsgd.coordinator.service.jobs import JobRecord
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec_files import parse_spec
from shardsgd.spec_messages import spec_message


def job_message(record: JobRecord, queue_position: int | None = None) -> pb.Job:
    """A job as it stands.

    Args:
        record: from the store.
        queue_position: jobs that are started before it; None where it does not wait.
    """
    message = pb.Job(
        job_id=record.job_id,
        spec=_spec(record.spec_toml),
        state=state_number(record.state),
        reason=record.reason,
        intent=cast("pb.Intent", pb.Intent.Value(f"INTENT_{record.intent}")),
        owner=record.owner,
        priority=record.priority,
        create_time=timestamp(record.created_at),
        last_sequence=record.last_sequence,
        queue_position=queue_position,
    )
    if record.started_at is not None:
        message.start_time.CopyFrom(timestamp(record.started_at))
    if record.ended_at is not None:
        message.end_time.CopyFrom(timestamp(record.ended_at))
    if record.progress is not None:
        message.progress.CopyFrom(metrics_message(record.progress))
    if record.summary is not None:
        message.summary.CopyFrom(summary_message(record.summary))
    return message


@lru_cache(maxsize=1024)
def _spec(toml: str) -> pb.JobSpec:
    """A recorded spec as a message, not to be changed. Reading one takes half a millisecond, and lists hold many."""
    return spec_message(parse_spec(toml))
