"""Opening a job store: who may, what is refused, and that refusing changes nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from stores import all_events, job_in, log

from shardsgd.coordinator.service.jobs import StoreError
from shardsgd.coordinator.service.schema import VERSION
from shardsgd.coordinator.service.states import JobState
from shardsgd.coordinator.service.store import JobStore

PROCESS = Path(__file__).parents[1] / "support" / "store_process.py"


@pytest.fixture
def folder(tmp_path):
    """A closed store with a job of many events."""
    with closing(JobStore(tmp_path / "deep" / "store")) as store:
        job_id = job_in(store, JobState.RUNNING)
        store.append(job_id, [log("x" * 1000) for _ in range(200)])
    return tmp_path / "deep" / "store"


def refused(folder, words):
    with pytest.raises(StoreError, match=words) as caught:
        JobStore(folder)
    assert str(folder) in str(caught.value)


def database(folder):
    return folder / "jobs.sqlite"


def test_one_service_at_a_time_however_the_last_one_ended(folder):
    arguments = [sys.executable, PROCESS, "jobs", folder, "1"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        refused(folder, rf"another service \(pid {process.pid}\) uses this folder")
        second = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert f"StoreError: {folder}: another service (pid {process.pid})" in second.stderr
        process.send_signal(signal.SIGKILL)
    with closing(JobStore(folder)) as store:
        refused(folder, rf"pid {os.getpid()}\)")
        assert store.unfinished()


def test_a_refused_store_can_be_opened_once_it_is_well_again(folder):
    whole = database(folder).read_bytes()
    database(folder).write_bytes(b"not a database at all" * 1000)
    refused(folder, r"damaged \(file is not a database\): restore it")
    database(folder).write_bytes(whole)
    with closing(JobStore(folder)) as store:
        assert len(store.unfinished()) == 1


def page_of(folder, name):
    """Where in the file the tree of a table or index begins."""
    with closing(sqlite3.connect(database(folder))) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        return 4096 * (connection.execute(query, (name,)).fetchone()[0] - 1)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(folder, share):
    size = database(folder).stat().st_size
    os.truncate(database(folder), int(size * share))
    refused(folder, "damaged")


def test_emptied(folder):
    os.truncate(database(folder), 0)
    refused(folder, "not a job store")


@pytest.mark.parametrize("where", ["jobs", "heads", "jobs_by_owner", "datasets"])
def test_overwritten(folder, where):
    with database(folder).open("r+b") as file:
        file.seek(page_of(folder, where))
        file.write(b"\xaa" * 4096)
    refused(folder, "damaged")


def test_damaged_events_are_said_when_they_are_read(folder):
    """Millions of them are not looked through whenever a service starts."""
    with database(folder).open("r+b") as file:
        file.seek(page_of(folder, "events"))
        file.write(b"\xaa" * 4096)
    with closing(JobStore(folder)) as store:
        (job,) = store.unfinished()
        with pytest.raises(StoreError, match=rf"{folder}.*damaged"):
            all_events(store, job.job_id)
        assert store.get(job.job_id) == job


def test_of_a_newer_version(folder):
    with closing(sqlite3.connect(database(folder))) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = database(folder).read_bytes()
    refused(folder, f"is of version {VERSION + 1}, and this shardsgd knows {VERSION}: use the shardsgd that wrote it")
    assert database(folder).read_bytes() == before


def test_of_another_program(tmp_path):
    with closing(sqlite3.connect(database(tmp_path))) as connection:
        connection.execute("CREATE TABLE songs (name)")
        before = database(tmp_path).read_bytes()
        refused(tmp_path, "not a job store")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        refused(tmp_path, "no such table: jobs")
    assert len(database(tmp_path).read_bytes()) == len(before)


def test_a_log_without_its_database(folder):
    """SQLite would put the old log's pages into a new database."""
    with closing(JobStore(folder)) as store:
        job_in(store, JobState.QUEUED)
        database(folder).rename(folder / "moved")
    (folder / "jobs.sqlite-wal").write_bytes(b"newest")
    refused(folder, "is missing, but its newest part jobs.sqlite-wal is there")
    assert not database(folder).exists()


def test_what_a_killed_first_service_left_half_made_is_made_anew(tmp_path):
    (tmp_path / ".jobs.sqlite").write_bytes(b"half")
    (tmp_path / ".jobs.sqlite-journal").write_bytes(b"half")
    with closing(JobStore(tmp_path)) as store:
        job_in(store, JobState.QUEUED)
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.sqlite", "service.lock"}


def test_where_no_folder_can_be(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "File exists")
    refused(tmp_path / "file" / "store", "Not a directory")
