"""Uses a job store until it is killed, and says what it was promised.

python store_process.py jobs FOLDER ROUND: makes jobs and appends events to them; a line for each call once it has returned.
python store_process.py delete FOLDER JOB: deletes a job; a line before, none after.
python store_process.py upload FOLDER SHA256 SIZE: writes half of a dataset, says so, and waits.
python store_process.py limited FOLDER SHA256 SIZE BYTES: writes a dataset where no file may be larger; prints the error.
"""

import random
import resource
import sys
from pathlib import Path

from stores import log, new_job

from shardsgd.coordinator.service.datasets import DatasetFiles
from shardsgd.coordinator.service.jobs import DiskFullError
from shardsgd.coordinator.service.states import JobState
from shardsgd.coordinator.service.store import JobStore


def say(*words) -> None:
    print(*words, flush=True)


def make_jobs(folder: str, turn: str) -> None:
    store = JobStore(Path(folder))
    moments = random.Random(turn)
    jobs, told = [], {}
    say("open")
    while True:
        if not jobs or moments.random() < 0.2:
            # Asked for anew in the next round, where the same request_id must not make another job.
            request_id = f"request-{len(jobs)}" if moments.random() < 0.5 else f"request-{turn}-{len(jobs)}"
            record, made = store.create(new_job(job_id=f"job-{turn}-{len(jobs)}", request_id=request_id))
            say("job", record.job_id, request_id, int(made))
            if made:
                jobs.append(record.job_id)
        if not jobs:
            continue
        job = moments.choice(jobs)
        if moments.random() < 0.2:
            there = store.get(job).state
            last = store.change(job, state=JobState.PAUSED if there is JobState.QUEUED else JobState.QUEUED, at=1.0)
            say("events", job, last.last_sequence, told.get(job, 0))
        else:
            first = told.get(job, 0)
            batch = range(first, first + moments.randint(1, 20))
            last = store.append(job, [log(str(number)) for number in batch])
            told[job] = batch.stop
            say("events", job, last, batch.stop)


def delete(folder: str, job_id: str) -> None:
    store = JobStore(Path(folder))
    say("open")
    store.delete(job_id)


def upload(folder: str, sha256: str, size: str) -> None:
    with DatasetFiles(Path(folder), 2**30).begin(sha256, int(size), ".csv") as coming:
        coming.write(b"x" * (int(size) // 2))
        say("half")
        sys.stdin.read()


def limited(folder: str, sha256: str, size: str, limit: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        with DatasetFiles(Path(folder), 2**30).begin(sha256, int(size), ".csv") as coming:
            coming.write(b"x" * int(size))
    except DiskFullError as error:
        say(error)


if __name__ == "__main__":
    {"jobs": make_jobs, "delete": delete, "upload": upload, "limited": limited}[sys.argv[1]](*sys.argv[2:])
