"""Following a job on the terminal: its events shown like a local run's, and how it ended."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from shardsgd.coordinator.records import Observer
from shardsgd.coordinator.service.states import ENDED, JobState
from shardsgd.errors import InterruptedJobError, ServiceUnavailableError
from shardsgd.progress import PlainProgress
from shardsgd.remote_events import IncidentEvent, JobEvent, LogEvent, StateEvent, StepEvent, ValidationEvent
from shardsgd.remote_job import summary_of_ended
from shardsgd.remote_json import event_object
from shardsgd.remote_view import ended_table
from shardsgd.terminal import LeavableConsole, print_json, say

if TYPE_CHECKING:
    from shardsgd.remote_info import JobInfo
    from shardsgd.remote_job import RemoteJob
    from shardsgd.remote_options import Connection

_PHASES = {
    JobState.QUEUED: "queued",
    JobState.STARTING: "starting workers",
    JobState.RUNNING: "training",
    JobState.PAUSED: "paused",
}


def follow(job: RemoteJob, observer: Observer, connection: Connection, after: int = 0) -> JobInfo:
    """Shows a job's events until it has ended.

    Returns:
        The job, ended.

    Raises:
        InterruptedJobError: Ctrl-C; the job goes on.
        BrokenPipeError: nobody reads what is printed any more; likewise.
    """

    def lost(error: ServiceUnavailableError) -> None:
        observer.note(f"{error}; trying again")

    try:
        for event in job.watch(after, on_lost=lost):
            show(event, observer)
            if isinstance(observer, PlainProgress) and not observer.is_read:
                raise BrokenPipeError  # the job needs no one to watch it
        return job.get()
    except KeyboardInterrupt:
        raise _left(job, connection) from None


def print_events(job: RemoteJob, connection: Connection, after: int) -> JobInfo:
    """Prints a job's events until it has ended, each as an object on a line of its own; returns and raises like `follow`."""

    def lost(error: ServiceUnavailableError) -> None:
        say(f"{error}; trying again")

    try:
        for event in job.watch(after, on_lost=lost):
            sys.stdout.write(json.dumps(event_object(event)) + "\n")
            sys.stdout.flush()
        return job.get()
    except KeyboardInterrupt:
        raise _left(job, connection) from None


def conclude(info: JobInfo, connection: Connection, *, json_only: bool) -> None:
    """Prints how a job ended.

    Args:
        info: the job, ended.
        connection: to its service.
        json_only: print summary.json's object and nothing else, also that of a job that failed.

    Raises:
        JobError: it did not succeed.
    """
    if json_only and info.summary_json is not None:
        print_json(info.summary_json)
    summary_of_ended(info)
    if not json_only:
        LeavableConsole().print(ended_table(info, connection.command("download", info.job_id)))


def show(event: JobEvent, observer: Observer) -> None:
    """Tells an observer of an event."""
    match event:
        case StepEvent():
            observer.step(event.record, event.pace)
        case ValidationEvent():
            observer.validation(event.record)
        case IncidentEvent():
            observer.incident(event.record)
        case LogEvent():
            observer.note(event.text)
        case StateEvent() if event.state not in ENDED:
            observer.phase(_PHASES[event.state] + (f": {event.reason}" if event.reason else ""))


def _left(job: RemoteJob, connection: Connection) -> InterruptedJobError:
    watch, cancel = (connection.command(word, job.id) for word in ("watch", "cancel"))
    return InterruptedJobError(f"job {job.id} goes on: `{watch}` follows it, `{cancel}` ends it")
