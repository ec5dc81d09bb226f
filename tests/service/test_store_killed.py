"""kill -9 of a service that makes jobs and appends events: what it has acknowledged is there, exactly once, without gap."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from stores import all_events, job_in, log

from shardsgd.coordinator.service.states import JobState
from shardsgd.coordinator.service.store import JobStore

PROCESS = Path(__file__).parents[1] / "support" / "store_process.py"
ROUNDS = 12
MOMENTS = random.Random(0)


def killed(within_seconds, *arguments):
    """What a process said before it was killed at a moment after its first line."""
    with subprocess.Popen([sys.executable, PROCESS, *arguments], stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        # Any moment will do: this draws one, and waits for nothing.
        time.sleep(MOMENTS.uniform(0, within_seconds))
        process.send_signal(signal.SIGKILL)
        return [line.split() for line in [first, *process.stdout]]


def check_events(store, job_id, acknowledged, told):
    """Numbers without gap; the logged numbers, too, up to what was acknowledged and at most one call beyond."""
    events = all_events(store, job_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert store.get(job_id).last_sequence == len(events) >= acknowledged
    logged = [int(event.body["text"]) for event in events if event.kind == "log"]
    assert logged == list(range(len(logged)))
    assert told <= len(logged) <= told + 20


def test_what_was_acknowledged_is_there_once(tmp_path):
    acknowledged, told, of_request = {}, {}, {}
    for turn in range(ROUNDS):
        for line in killed(0.3, "jobs", tmp_path / "store", str(turn)):
            match line:
                case ["job", job_id, request_id, _]:
                    assert of_request.setdefault(request_id, job_id) == job_id
                    acknowledged.setdefault(job_id, 1)
                case ["events", job_id, last, count]:
                    acknowledged[job_id], told[job_id] = int(last), int(count)
        with closing(JobStore(tmp_path / "store")) as store:
            there = store.unfinished()
            requests = Counter(record.request_id for record in there)
            assert set(requests.values()) == {1}
            assert set(acknowledged) <= {record.job_id for record in there}
            # Beyond what was acknowledged, each killed service can have left one job.
            assert len(there) <= len(acknowledged) + turn + 1
            for record in there:
                if record.request_id in of_request:
                    assert of_request[record.request_id] == record.job_id
                check_events(store, record.job_id, acknowledged.get(record.job_id, 1), told.get(record.job_id, 0))
    assert len(acknowledged) > ROUNDS
    assert sum(acknowledged.values()) > 20 * ROUNDS


def test_a_job_is_deleted_whole_or_not_at_all(tmp_path):
    gone = 0
    for _ in range(8):
        with closing(JobStore(tmp_path)) as store:
            job_id, other = job_in(store, JobState.RUNNING), job_in(store, JobState.QUEUED)
            store.append(job_id, [log(str(number)) for number in range(20_000)])
            store.change(job_id, state=JobState.FAILED, at=1.0)
        killed(0.05, "delete", tmp_path, job_id)
        with closing(JobStore(tmp_path)) as store:
            left = all_events(store, job_id)
            if store.get(job_id) is None:
                gone += 1
                assert left == []
                with store._file.reading() as database:
                    kept = database.execute("SELECT count(*) FROM events").fetchone()[0]
                assert kept == sum(
                    record.last_sequence for record in store.page(owner=None, states=(), before=None, limit=99)[0]
                )
            else:
                assert len(left) == store.get(job_id).last_sequence
            assert len(all_events(store, other)) == 1
    assert gone
