"""Jobs and events for tests of the job store."""

from itertools import count

from shardsgd.coordinator.service.jobs import NewEvent, NewJob
from shardsgd.coordinator.service.states import JobState

_numbers = count(1)
# How a job may get anywhere.
WAYS = {
    JobState.QUEUED: (),
    JobState.STARTING: (JobState.STARTING,),
    JobState.RUNNING: (JobState.STARTING, JobState.RUNNING),
    JobState.PAUSED: (JobState.PAUSED,),
    JobState.SUCCEEDED: (JobState.STARTING, JobState.SUCCEEDED),
    JobState.FAILED: (JobState.STARTING, JobState.FAILED),
    JobState.CANCELLED: (JobState.CANCELLED,),
}


def new_job(**changes) -> NewJob:
    """A job unlike all others."""
    values = {
        "job_id": f"job-{next(_numbers)}",
        "owner": "ada",
        "request_id": "",
        "fingerprint": "f",
        "spec_toml": 'name = "µ"\n',
        "priority": 0,
        "workers": 2,
        "created_at": 1000.5,
    }
    return NewJob(**values | changes)


def job_in(store, state, **changes) -> str:
    """A new job in a state; its id."""
    job = new_job(**changes)
    store.create(job)
    for each in WAYS[state]:
        store.change(job.job_id, state=each, at=1001.0)
    return job.job_id


def metrics(step: int, **body) -> NewEvent:
    return NewEvent("metrics", 1000.0 + step, {"step": step, "loss": 0.25} | body)


def validation(step: int, **body) -> NewEvent:
    return NewEvent("validation", 1000.0 + step, {"step": step, "accuracy": None} | body)


def incident(step: int, **body) -> NewEvent:
    return NewEvent("incident", 1000.0 + step, {"step": step, "kind": "lost"} | body)


def log(text: str) -> NewEvent:
    return NewEvent("log", 1000.0, {"text": text})


def all_events(store, job_id):
    """All events of a job, read in pieces."""
    events = []
    while more := store.events(job_id, events[-1].sequence if events else 0, 700):
        events += more
    return events
