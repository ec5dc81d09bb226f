"""Following a job through every break of the connection: each event once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing

from shardsgd.errors import ServiceUnavailableError
from shardsgd.protos import training_pb2 as pb
from shardsgd.remote_calls import Calls
from shardsgd.remote_events import JobEvent
from shardsgd.remote_messages import job_event
from shardsgd.remote_patience import Patience

# Deadline of one stream; the next one goes on where it ends.
_STREAM_S = 3600.0


def follow(
    calls: Calls,
    job_id: str,
    after_sequence: int,
    patience: Patience,
    *,
    until: float | None = None,
    on_lost: Callable[[ServiceUnavailableError], None] | None = None,
) -> Generator[JobEvent, None, None]:
    """Events of a job until it has ended.

    Args:
        calls: to the service.
        job_id: whose.
        after_sequence: number of the last event that is not wanted; 0: from the first one.
        patience: how long the service may be out of reach.
        until: when to stop following, on the clock of `time.monotonic`; None: never.
        on_lost: told when the service is out of reach, once each time.

    Raises:
        ServiceUnavailableError: the service has been out of reach for as long as `patience` goes.
        RemoteError: the service refuses, or failed.
    """
    while until is None or time.monotonic() < until:
        began = time.monotonic()
        timeout_s = _STREAM_S if until is None else min(_STREAM_S, until - began)
        request = pb.WatchJobRequest(job_id=job_id, after_sequence=after_sequence)
        try:
            with closing(calls.stream(request, pb.WatchJobResponse, timeout_s=timeout_s)) as stream:
                for message in stream:
                    patience.encouraged()
                    after_sequence = message.sequence
                    if (event := job_event(message)) is not None:
                        yield event
            return
        except ServiceUnavailableError as error:
            if error.code == "DEADLINE_EXCEEDED" and time.monotonic() - began >= timeout_s / 2:
                continue  # nothing happened for long, which is no trouble
            if on_lost is not None and patience.is_new_trouble:
                on_lost(error)
            patience.after(error)
