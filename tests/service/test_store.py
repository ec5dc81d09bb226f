"""The job store: what it keeps, and what it refuses."""

import math
import pickle
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from stores import WAYS, all_events, incident, job_in, log, metrics, new_job, validation

from shardsgd.coordinator.service.jobs import (
    DatasetGoneError,
    DiskFullError,
    Event,
    JobGoneError,
    JobRecord,
    Position,
    QuotaError,
    RequestReusedError,
    StaleError,
)
from shardsgd.coordinator.service.states import ENDED, Intent, JobState, may_become
from shardsgd.coordinator.service.store import JobStore

SHA = "a" * 64
OTHER = "b" * 64


@pytest.fixture
def store(tmp_path):
    with closing(JobStore(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def reopened(store, tmp_path):
    """Closes the store and opens it again."""
    stores = []

    def reopen():
        (stores[-1] if stores else store).close()
        stores.append(JobStore(tmp_path / "store"))
        return stores[-1]

    yield reopen
    for each in stores:
        each.close()


def test_a_new_job_is_queued_and_says_so(store):
    job = new_job(request_id="r", priority=-3)
    record, made = store.create(job)
    assert made
    assert record == JobRecord(**vars(job), last_sequence=1) == store.get(job.job_id)
    assert (record.state, record.intent, record.runs) == (JobState.QUEUED, Intent.RUN, 0)
    body = {"state": "QUEUED", "reason": "", "summary": None}
    assert store.events(job.job_id, 0, 10) == [Event("state", 1000.5, body, 1)]
    assert store.position(job.job_id) == Position(-1, -1, -1)


def test_all_is_there_when_it_is_opened_again(store, reopened):
    job_id = job_in(store, JobState.RUNNING)
    store.append(job_id, [metrics(0), validation(0), incident(0), log("µ")])
    store.change(job_id, state=JobState.PAUSED, intent=Intent.PAUSE, summary={"steps": 1}, scale=3, at=1002.0)
    store.link_dataset(SHA, "ada", 10, ".csv", 1.0)
    before = store.get(job_id), store.position(job_id), all_events(store, job_id)
    again = reopened()
    assert (again.get(job_id), again.position(job_id), all_events(again, job_id)) == before
    assert again.owns_dataset(SHA, "ada") == ".csv"


def test_nobody_else_may_read_it(store, tmp_path):
    store.create(new_job())
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()} == {0o600}


def test_what_it_does_is_durable_at_once(store):
    """A power cut cannot be had in a test; that SQLite waits for the disk at every commit can be asked."""
    with store._file.writing() as database:
        settings = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


class TestRequests:
    def test_a_retry_returns_the_first_job_as_it_stands(self, store):
        first = new_job(request_id="r")
        store.create(first)
        now = store.change(first.job_id, state=JobState.STARTING, at=1.0)
        assert store.create(new_job(request_id="r")) == (now, False)
        assert len(store.unfinished()) == 1

    def test_another_request_of_that_name_is_an_error(self, store):
        first = new_job(request_id="r")
        store.create(first)
        with pytest.raises(RequestReusedError, match=rf"'r' was used .* {first.job_id}: ") as caught:
            store.create(new_job(request_id="r", fingerprint="g"))
        assert caught.value.job_id == first.job_id
        assert len(store.unfinished()) == 1

    def test_names_are_an_owners_own_and_none_is_no_name(self, store):
        jobs = [new_job(request_id="r"), new_job(request_id="r", owner="bob"), new_job(), new_job()]
        assert all(store.create(job)[1] for job in jobs)

    def test_it_is_remembered_for_as_long_as_the_job_is(self, store):
        job_id = job_in(store, JobState.CANCELLED, request_id="r")
        store.delete(job_id)
        assert store.create(new_job(request_id="r", fingerprint="g"))[1]

    def test_twenty_at_once_make_one_job(self, store):
        jobs = [new_job(request_id="r") for _ in range(20)]
        barrier = threading.Barrier(20)

        def create(job):
            barrier.wait()
            return store.create(job)

        with ThreadPoolExecutor(20) as threads:
            results = list(threads.map(create, jobs))
        (made,) = [record for record, made in results if made]
        assert {record.job_id for record, _ in results} == {made.job_id}
        assert [record.job_id for record in store.unfinished()] == [made.job_id]
        assert len(all_events(store, made.job_id)) == 1


def test_an_owner_has_so_many_open_jobs_at_most(store):
    job_in(store, JobState.SUCCEEDED)
    job_in(store, JobState.QUEUED, owner="bob")
    job_in(store, JobState.PAUSED, request_id="r")
    assert store.create(new_job(), open_jobs=2)[1]
    with pytest.raises(QuotaError, match="there are 2 of at most 2") as caught:
        store.create(new_job(), open_jobs=2)
    assert (caught.value.used, caught.value.limit) == (2, 2)
    # A retry asks for nothing more.
    assert not store.create(new_job(request_id="r"), open_jobs=2)[1]
    assert len(store.unfinished()) == 3


class TestPages:
    def test_they_hold_all_jobs_once_newest_first(self, store):
        jobs = [job_in(store, JobState.QUEUED, created_at=float(-i)) for i in range(7)]
        pages, cursor = [], None
        while not pages or cursor is not None:
            page, cursor = store.page(owner=None, states=(), before=cursor, limit=3)
            pages.append(page)
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [record.job_id for page in pages for record in page] == jobs[::-1]

    def test_a_page_that_ends_with_the_last_job_is_the_last(self, store):
        job_in(store, JobState.QUEUED)
        assert store.page(owner=None, states=(), before=None, limit=1)[1] is None

    def test_of_an_owner_and_of_states(self, store):
        ids = {(owner, state): job_in(store, state, owner=owner) for state in JobState for owner in ("ada", "bob")}

        def page(**options):
            records, _ = store.page(before=None, limit=50, **options)
            return {record.job_id for record in records}

        assert page(owner="ada", states=()) == {ids["ada", state] for state in JobState}
        assert page(owner="bob", states=ENDED) == {ids["bob", state] for state in ENDED}
        assert page(owner=None, states=[JobState.PAUSED]) == {ids[owner, JobState.PAUSED] for owner in ("ada", "bob")}
        assert page(owner="eve", states=()) == set()

    def test_what_comes_and_goes_between_two_pages_moves_nothing(self, store):
        jobs = [job_in(store, JobState.CANCELLED) for _ in range(5)]
        _, cursor = store.page(owner="ada", states=(), before=None, limit=2)
        store.delete(jobs[3])
        job_in(store, JobState.QUEUED)
        rest, cursor = store.page(owner="ada", states=(), before=cursor, limit=10)
        assert ([record.job_id for record in rest], cursor) == (jobs[2::-1], None)


class TestChanges:
    @pytest.mark.parametrize("new", JobState)
    @pytest.mark.parametrize("state", JobState)
    def test_only_to_states_that_follow(self, store, state, new):
        job_id = job_in(store, state)
        before = store.get(job_id)
        if may_become(state, new):
            after = store.change(job_id, state=new, at=5.0)
            assert after == store.get(job_id)
            assert (after.state, after.last_sequence) == (new, before.last_sequence + 1)
        elif new is state:
            assert store.change(job_id, state=new, at=5.0) == before
        else:
            with pytest.raises(StaleError) as caught:
                store.change(job_id, state=new, at=5.0)
            assert caught.value.record == before == store.get(job_id)

    def test_only_from_states_that_are_expected(self, store):
        job_id = job_in(store, JobState.QUEUED)
        with pytest.raises(StaleError, match=f"{job_id} is QUEUED"):
            store.change(job_id, intent=Intent.PAUSE, expect={JobState.RUNNING}, at=5.0)
        assert store.get(job_id).intent is Intent.RUN
        assert store.change(job_id, intent=Intent.PAUSE, expect=[JobState.QUEUED], at=5.0).intent is Intent.PAUSE

    def test_a_life(self, store):
        job_id = job_in(store, JobState.QUEUED)
        steps = [
            (JobState.STARTING, "", None),
            (JobState.RUNNING, "", None),
            (JobState.QUEUED, "the service was restarted", None),
            (JobState.STARTING, "", None),
            (JobState.RUNNING, "", None),
            (JobState.PAUSED, "", {"steps": 5}),
            (JobState.QUEUED, "", None),
            (JobState.STARTING, "", None),
            (JobState.FAILED, "no worker is left", {"steps": 7}),
        ]
        for at, (state, reason, summary) in enumerate(steps):
            record = store.change(job_id, state=state, reason=reason, summary=summary, at=float(at))
            assert (record.state, record.reason) == (state, reason)
        assert (record.started_at, record.ended_at, record.runs, record.summary) == (1.0, 8.0, 3, {"steps": 7})
        told = [
            (event.body["state"], event.body["reason"], event.body["summary"]) for event in all_events(store, job_id)
        ]
        assert told == [("QUEUED", "", None), *steps]
        assert [event.at for event in all_events(store, job_id)] == [1000.5, *map(float, range(9))]

    def test_what_is_not_given_stays_but_for_the_reason_of_an_old_state(self, store):
        job_id = job_in(store, JobState.QUEUED)
        changed = {"reason": "waits", "intent": Intent.PAUSE, "summary": {"steps": 1}, "scale": 4}
        record = store.change(job_id, at=1.0, **changed)
        assert vars(record).items() >= changed.items()
        assert store.change(job_id, at=2.0) == record
        assert store.change(job_id, state=JobState.STARTING, at=3.0) == replace(
            record, state=JobState.STARTING, reason="", runs=1, last_sequence=2
        )

    def test_a_change_of_nothing_but_the_state_is_no_news(self, store):
        job_id = job_in(store, JobState.RUNNING)
        before = all_events(store, job_id)
        store.change(job_id, intent=Intent.PAUSE, scale=1, reason="soon", at=1.0)
        assert all_events(store, job_id) == before

    def test_what_cannot_be_text_becomes_it(self, store):
        job_id = job_in(store, JobState.RUNNING)
        body = {"text": b"caf\xe9".decode(errors="surrogateescape"), "loss": math.nan, "more": [math.inf]}
        store.append(job_id, [replace(log(""), body=body)])
        assert all_events(store, job_id)[-1].body == {"text": "caf?", "loss": None, "more": [None]}
        assert store.change(job_id, state=JobState.FAILED, reason=body["text"], at=1.0).reason == "caf?"


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.change("gone", at=1.0),
        lambda store: store.append("gone", [log("")]),
        lambda store: store.position("gone"),
        lambda store: store.delete("gone"),
    ],
    ids=["change", "append", "position", "delete"],
)
def test_a_job_that_is_not_there(store, call):
    assert store.get("gone") is None
    assert store.events("gone", 0, 10) == []
    with pytest.raises(JobGoneError, match="there is no job gone") as caught:
        call(store)
    assert caught.value.job_id == "gone"


class TestEvents:
    def test_they_are_read_in_order_from_anywhere(self, store):
        job_id = job_in(store, JobState.QUEUED)
        job_in(store, JobState.QUEUED)
        assert store.append(job_id, [log(str(i)) for i in range(2, 10)]) == 9
        assert [event.body["text"] for event in store.events(job_id, 3, 4)] == ["4", "5", "6", "7"]
        assert [event.sequence for event in store.events(job_id, 7, 100)] == [8, 9]
        assert store.events(job_id, 9, 100) == []

    def test_steps_that_are_told_again_are_dropped(self, store):
        job_id = job_in(store, JobState.RUNNING)
        told = [metrics(0), validation(0), metrics(3), incident(3), metrics(7)]
        last = store.append(job_id, told)
        assert store.position(job_id) == Position(7, 0, 3)
        again = [metrics(0, loss=9.0), metrics(7, loss=9.0), incident(3), validation(0), log("back"), incident(2)]
        assert store.append(job_id, again) == last + 3
        more = [metrics(8, loss=0.5), metrics(8, loss=9.0), validation(8), validation(8)]
        assert store.append(job_id, more) == last + 5
        new = [event.kind for event in store.events(job_id, last, 100)]
        assert new == ["incident", "log", "incident", "metrics", "validation"]
        assert store.position(job_id) == Position(8, 8, 3)
        assert store.get(job_id).progress == {"step": 8, "loss": 0.5}

    def test_nothing_new_is_nothing(self, store):
        job_id = job_in(store, JobState.RUNNING)
        last = store.append(job_id, [metrics(4)])
        assert store.append(job_id, [metrics(4)]) == store.append(job_id, []) == last == len(all_events(store, job_id))

    def test_a_batch_is_recorded_whole_or_not_at_all(self, store):
        job_id = job_in(store, JobState.RUNNING)
        before = store.get(job_id)
        with pytest.raises(TypeError):
            store.append(job_id, [metrics(0), log(object())])
        assert store.get(job_id) == before
        assert store.position(job_id) == Position()
        assert store.append(job_id, [metrics(0)]) == before.last_sequence + 1

    @pytest.mark.parametrize("state", sorted(ENDED))
    def test_none_comes_after_the_last(self, store, state):
        job_id = job_in(store, state)
        with pytest.raises(StaleError):
            store.append(job_id, [log("late")])
        assert all_events(store, job_id)[-1].body["state"] == state


class TestDeleting:
    @pytest.mark.parametrize("state", JobState)
    def test_only_what_has_ended(self, store, state):
        job_id = job_in(store, state)
        if state in ENDED:
            store.delete(job_id)
            assert store.get(job_id) is None
            assert store.page(owner=None, states=(), before=None, limit=9) == ([], None)
        else:
            with pytest.raises(StaleError):
                store.delete(job_id)
            assert store.get(job_id).state is state
            assert len(all_events(store, job_id)) == 1 + len(WAYS[state])

    def test_nothing_of_it_is_left_and_nothing_else_is_lost(self, store):
        job_id, other = job_in(store, JobState.RUNNING), job_in(store, JobState.RUNNING)
        for each in (job_id, other):
            store.append(each, [log(str(i)) for i in range(5000)])
        store.change(job_id, state=JobState.FAILED, at=1.0)
        before = all_events(store, other)
        store.delete(job_id)
        assert all_events(store, job_id) == []
        assert all_events(store, other) == before
        with store._file.reading() as database:
            assert database.execute("SELECT count(*) FROM events").fetchone()[0] == len(before)
            assert database.execute("SELECT count(*) FROM heads").fetchone()[0] == 1
            assert database.execute("SELECT count(*) FROM deleted").fetchone()[0] == 0

    def test_a_later_job_has_none_of_its_events(self, store):
        """What is left to be removed, because the service was killed, must not become another job's."""
        job_id = job_in(store, JobState.CANCELLED)
        store._remove_events = lambda: None
        store.delete(job_id)
        later = new_job(job_id=job_id)
        store.create(later)
        assert len(all_events(store, job_id)) == 1


class TestDatasets:
    def test_an_owner_has_what_is_linked(self, store):
        store.link_dataset(SHA, "ada", 100, ".csv", 1.0)
        store.link_dataset(SHA, "bob", 100, ".npz", 1.0)
        store.link_dataset(OTHER, "ada", 11, ".npy", 1.0)
        assert [store.owns_dataset(SHA, owner) for owner in ("ada", "bob", "eve")] == [".csv", ".npz", None]
        assert [store.dataset_bytes(owner) for owner in ("ada", "bob", "eve")] == [111, 100, 0]
        assert [store.is_linked(sha) for sha in (SHA, "c" * 64)] == [True, False]

    def test_the_same_again_counts_once_and_may_be_another_format(self, store):
        store.link_dataset(SHA, "ada", 100, ".csv", 1.0, most_bytes=100)
        # What is recorded was checked; what somebody says the second time was not.
        store.link_dataset(SHA, "ada", 1, ".npy", 2.0, most_bytes=100)
        assert (store.owns_dataset(SHA, "ada"), store.dataset_bytes("ada")) == (".npy", 100)

    def test_no_more_bytes_than_allowed(self, store):
        store.link_dataset(SHA, "ada", 100, ".csv", 1.0, most_bytes=150)
        with pytest.raises(QuotaError, match="bytes of datasets: there are 100 of at most 150"):
            store.link_dataset(OTHER, "ada", 51, ".csv", 1.0, most_bytes=150)
        store.link_dataset(OTHER, "bob", 51, ".csv", 1.0, most_bytes=150)
        assert store.owns_dataset(OTHER, "ada") is None

    def test_a_job_uses_what_its_owner_has(self, store):
        store.link_dataset(SHA, "bob", 100, ".csv", 1.0)
        with pytest.raises(DatasetGoneError, match=f"sha256:{SHA}.*upload it again"):
            store.create(new_job(), dataset=SHA)
        assert store.unfinished() == []
        assert store.create(new_job(owner="bob"), dataset=SHA)[1]

    def test_it_is_forgotten_some_time_after_its_last_job_has_ended(self, store):
        store.link_dataset(SHA, "ada", 100, ".csv", 10.0)
        first, second = (store.create(new_job(created_at=at), dataset=SHA)[0].job_id for at in (20.0, 30.0))
        store.change(first, state=JobState.CANCELLED, at=60.0)
        store.change(second, state=JobState.PAUSED, at=40.0)
        assert store.forget_datasets(1e9) == []
        store.change(second, state=JobState.CANCELLED, at=50.0)
        assert store.forget_datasets(60.0) == []
        # Nor does it go earlier where the jobs are deleted.
        store.delete(first)
        store.delete(second)
        assert store.forget_datasets(60.0) == []
        assert store.owns_dataset(SHA, "ada") == ".csv"
        assert store.forget_datasets(60.5) == [SHA]
        assert (store.owns_dataset(SHA, "ada"), store.is_linked(SHA), store.dataset_bytes("ada")) == (None, False, 0)

    def test_not_for_a_while_after_it_was_touched(self, store):
        store.link_dataset(SHA, "ada", 100, ".csv", 10.0)
        assert store.touch_dataset(SHA, "bob", 30.0) is None
        assert store.touch_dataset(SHA, "ada", 30.0) == ".csv"
        assert store.touch_dataset(SHA, "ada", 20.0) == ".csv"
        assert store.forget_datasets(30.0) == []
        assert store.forget_datasets(30.1) == [SHA]
        assert store.touch_dataset(SHA, "ada", 40.0) is None

    def test_not_while_another_owner_has_touched_it(self, store):
        store.link_dataset(SHA, "ada", 100, ".csv", 10.0)
        store.link_dataset(SHA, "bob", 100, ".csv", 20.0)
        store.link_dataset(OTHER, "ada", 100, ".csv", 10.0)
        assert store.forget_datasets(15.0) == [OTHER]
        store.link_dataset(SHA, "bob", 100, ".csv", 5.0)
        assert store.forget_datasets(20.0) == []
        assert store.forget_datasets(20.1) == [SHA]


def test_a_full_disk_is_said_and_changes_nothing(store, reopened):
    """SQLite's own limit on pages fails where a full disk does, with the same code."""
    job_id = job_in(store, JobState.RUNNING)
    with store._file.writing() as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
    before = all_events(store, job_id)
    with pytest.raises(DiskFullError, match="disk is full"):
        store.append(job_id, [log("x" * 100_000)])
    assert all_events(store, job_id) == before
    with store._file.writing() as database:
        database.execute("PRAGMA max_page_count = 1000000")
    assert store.append(job_id, [log("x" * 100_000)]) == len(before) + 1
    assert len(all_events(reopened(), job_id)) == len(before) + 1


def test_a_reader_does_not_wait_for_a_writer(store):
    job_id = job_in(store, JobState.QUEUED)
    with store._file.writing() as database, ThreadPoolExecutor(1) as reader:
        database.execute("UPDATE jobs SET reason = 'not yet'")
        assert reader.submit(store.get, job_id).result(timeout=60).reason == ""


def test_many_threads_write_and_read_at_once(store):
    ids = [job_in(store, JobState.RUNNING) for _ in range(2)]

    def work(thread):
        for number in range(40):
            store.append(ids[number % 2], [log(f"{thread} {number}")] * 2)
            store.create(new_job(owner="bob"))
            # Nothing half done is seen.
            assert store.get(ids[0]).last_sequence % 2 == 1
        return thread

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == list(range(8))
    for parity, job_id in enumerate(ids):
        events = all_events(store, job_id)[3:]
        assert [event.sequence for event in events] == list(range(4, 4 + 8 * 40))
        for thread in range(8):
            own = [event.body["text"] for event in events if event.body["text"].startswith(f"{thread} ")]
            assert own == [f"{thread} {number}" for number in range(parity, 40, 2) for _ in range(2)]
    assert len(store.unfinished()) == 2 + 8 * 40


def test_errors_survive_a_trip_between_processes(store):
    record = store.create(new_job())[0]
    errors = [RequestReusedError("r", "j"), QuotaError("jobs", 1, 2), JobGoneError("j"), DatasetGoneError(SHA)]
    for error in [*errors, StaleError(record), DiskFullError("full")]:
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_speed_comes_from_indexes(store):
    """50 jobs of 100,000 events each must not slow down what is asked for most: nothing goes through a whole table."""
    with store._file.reading() as database:

        def plan(query):
            return " ".join(row["detail"] for row in database.execute(f"EXPLAIN QUERY PLAN {query}"))

        for query in (
            "SELECT * FROM records WHERE job_id = ''",
            "SELECT * FROM records WHERE request_id != '' AND owner = '' AND request_id = ''",
            "SELECT * FROM records WHERE owner = '' AND number < 9 ORDER BY number DESC LIMIT 9",
            "SELECT * FROM records WHERE number < 9 ORDER BY number DESC LIMIT 9",
            "SELECT * FROM events WHERE job = 1 AND sequence > 5 ORDER BY sequence LIMIT 9",
            "SELECT * FROM datasets WHERE sha256 = ''",
        ):
            assert "SCAN" not in plan(query), query
            assert "TEMP B-TREE" not in plan(query), query
        # However many jobs have ended, these go through the open ones only.
        for query in (
            "SELECT * FROM records WHERE ended_at IS NULL ORDER BY number",
            "SELECT count(*) FROM jobs WHERE owner = '' AND ended_at IS NULL",
        ):
            assert "jobs_by_end" in plan(query), query
        assert "SCAN" in plan("SELECT * FROM records WHERE reason = ''")


def test_sqlite_errors_do_not_get_out(store):
    store.create(job := new_job())
    with pytest.raises(Exception, match="UNIQUE constraint failed") as caught:
        store.create(job)
    assert not isinstance(caught.value, sqlite3.Error)
    store.close()
    store.close()
    with pytest.raises(Exception, match="closed") as caught:
        store.get(job.job_id)
    assert not isinstance(caught.value, sqlite3.Error)
