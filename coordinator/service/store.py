"""The job store: what the service has promised, on disk before it promises it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shardsgd.coordinator.service import store_datasets, store_events, store_jobs
from shardsgd.coordinator.service.jobs import (
    Event,
    JobGoneError,
    JobRecord,
    NewEvent,
    NewJob,
    Position,
    QuotaError,
    RequestReusedError,
    StaleError,
)
from shardsgd.coordinator.service.states import ENDED, Intent, JobState, may_become
from shardsgd.coordinator.service.store_file import StoreFile


class JobStore:
    """Jobs, their events and their datasets, in `jobs.sqlite` of a folder.

    Whatever a method has changed is durable when it returns, and nothing is changed if it raises. Thread-safe; readers do not
    wait for writers. Every method may raise a StoreError if the disk fails, every writing one a DiskFullError if it is full.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the store of a folder; makes both where there is none, the folder readable for this user only.

        Args:
            folder: on a local file system. Only one service at a time has it open.

        Raises:
            StoreError: it cannot be opened, another service has it open, it is of a newer version, or damaged.
            DiskFullError: the disk is full.
        """
        self._file = StoreFile(folder)
        self._remove_events()

    def create(
        self, job: NewJob, *, open_jobs: int | None = None, dataset: str | None = None
    ) -> tuple[JobRecord, bool]:
        """Accepts a job, with its first event: QUEUED.

        Args:
            job: as asked for.
            open_jobs: most jobs of the owner that have not ended; None: any number.
            dataset: sha256 of the uploaded dataset that it uses; kept until it has ended.

        Returns:
            The record and True. If this owner's request_id has made a job already: that job as it stands, and False.

        Raises:
            RequestReusedError: this owner's request_id has made a job of another fingerprint.
            QuotaError: the owner has as many open jobs as allowed.
            DatasetGoneError: the owner has no such dataset.
        """
        with self._file.writing() as database:
            first = store_jobs.of_request(database, job.owner, job.request_id)
            if first is not None:
                if first.fingerprint != job.fingerprint:
                    raise RequestReusedError(job.request_id, first.job_id)
                return first, False
            if open_jobs is not None and (used := store_jobs.count_open(database, job.owner)) >= open_jobs:
                raise QuotaError("jobs that have not ended", used, open_jobs)
            number = store_jobs.insert_job(database, job)
            if dataset is not None:
                store_datasets.use_dataset(database, number, job.owner, dataset, job.created_at)
            store_events.append_events(database, number, [_state_event(JobState.QUEUED, "", None, job.created_at)])
            return store_jobs.numbered(database, job.job_id)[1], True

    def get(self, job_id: str) -> JobRecord | None:
        """One job as it stands; None if there is no such job."""
        with self._file.reading() as database:
            try:
                return store_jobs.numbered(database, job_id)[1]
            except JobGoneError:
                return None

    def page(
        self, *, owner: str | None, states: Collection[JobState], before: int | None, limit: int
    ) -> tuple[list[JobRecord], int | None]:
        """Jobs, the newest first.

        Args:
            owner: only this one's; None: everybody's.
            states: only jobs in one of these; none: in any.
            before: cursor of the page before; None: the first page.
            limit: jobs in a page, at least 1.

        Returns:
            The page, and the cursor of the next; None if this is the last.
        """
        with self._file.reading() as database:
            return store_jobs.page_of_jobs(database, owner, states, before, limit)

    def unfinished(self) -> list[JobRecord]:
        """All jobs that have not ended, the oldest first."""
        with self._file.reading() as database:
            return store_jobs.open_jobs(database)

    def change(
        self,
        job_id: str,
        *,
        state: JobState | None = None,
        reason: str | None = None,
        intent: Intent | None = None,
        expect: Collection[JobState] | None = None,
        summary: dict[str, Any] | None = None,
        scale: int | None = None,
        at: float,
    ) -> JobRecord:
        """Changes a job; None of these keeps what is there. A change of state is an event, too.

        Args:
            job_id: which job.
            state: the new one. The one that it is in is no change and no event.
            reason: why it stands where it stands; of a new state, None: empty.
            intent: what the user wants of it now.
            expect: the states in which this may be done; None: all from which `state` can be reached.
            summary: how it ended, or where it paused; also told by the event.
            scale: workers that it is to have.
            at: the time, in Unix seconds.

        Returns:
            The job as it stands now.

        Raises:
            StaleError: it is in none of the expected states, or cannot get from its state to the new one.
            JobGoneError: there is no such job.
        """
        with self._file.writing() as database:
            number, old = store_jobs.numbered(database, job_id)
            target = old.state if state is None else state
            moves = target is not old.state
            if (expect is not None and old.state not in expect) or (moves and not may_become(old.state, target)):
                raise StaleError(old)
            new = replace(
                old.in_state(target, at) if moves else old,
                intent=old.intent if intent is None else intent,
                summary=old.summary if summary is None else summary,
                scale=old.scale if scale is None else scale,
            )
            if reason is not None:
                new = replace(new, reason=store_jobs.as_text(reason))
            if new != old:
                store_jobs.update_job(database, number, new)
            if moves:
                event = _state_event(new.state, new.reason, summary, at)
                store_events.append_events(database, number, [event])
            return store_jobs.numbered(database, job_id)[1]

    def append(self, job_id: str, events: Sequence[NewEvent]) -> int:
        """Records events, all or none, but not those that a run tells once more.

        Metrics of steps up to the last recorded one are dropped, and so are validations. Incidents and log lines are all kept.
        The last metrics become the job's `progress`.

        Returns:
            The number of the job's last event.

        Raises:
            StaleError: the job has ended: its last event is its last change of state.
            JobGoneError: there is no such job.
        """
        with self._file.writing() as database:
            number, record = store_jobs.numbered(database, job_id)
            if record.state in ENDED:
                raise StaleError(record)
            return store_events.append_events(database, number, events)

    def position(self, job_id: str) -> Position:
        """How far the recorded events of a job go.

        Raises:
            JobGoneError: there is no such job.
        """
        with self._file.reading() as database:
            position = store_events.position_of(database, job_id)
        if position is None:
            raise JobGoneError(job_id)
        return position

    def events(self, job_id: str, after: int, limit: int) -> list[Event]:
        """At most `limit` events of a job, those numbered `after` + 1 and on; none if there is no such job."""
        with self._file.reading() as database:
            return store_events.read_events(database, job_id, after, limit)

    def delete(self, job_id: str) -> None:
        """Removes a job that has ended, its events and what it says about datasets.

        Raises:
            StaleError: it has not ended.
            JobGoneError: there is no such job.
        """
        with self._file.writing() as database:
            number, record = store_jobs.numbered(database, job_id)
            if record.ended_at is None:
                raise StaleError(record)
            store_datasets.touch_used(database, number, record.ended_at)
            database.execute("DELETE FROM jobs WHERE number = ?", (number,))
            database.execute("INSERT INTO deleted (job) VALUES (?)", (number,))
        self._remove_events()

    def link_dataset(
        self, sha256: str, owner: str, size_bytes: int, suffix: str, at: float, *, most_bytes: int | None = None
    ) -> None:
        """Records that an owner has a dataset, whose file is there and checked.

        Args:
            sha256: of its bytes.
            owner: who has it.
            size_bytes: of its file.
            suffix: of its file; a later one takes the place of an earlier one.
            at: the time, in Unix seconds.
            most_bytes: bytes of all the owner's datasets, at most; None: any number.

        Raises:
            QuotaError: the owner would have more than that.
        """
        with self._file.writing() as database:
            used = store_datasets.bytes_of(database, owner, except_sha256=sha256)
            if most_bytes is not None and used + size_bytes > most_bytes:
                raise QuotaError("bytes of datasets", used, most_bytes)
            store_datasets.link_dataset(database, sha256, owner, size_bytes, suffix, at)

    def touch_dataset(self, sha256: str, owner: str, at: float) -> str | None:
        """The suffix of an owner's dataset, which now counts as touched at a time; None if the owner does not have it."""
        with self._file.writing() as database:
            store_datasets.touch_dataset(database, sha256, owner, at)
            return store_datasets.suffix_of(database, sha256, owner)

    def owns_dataset(self, sha256: str, owner: str) -> str | None:
        """The suffix of an owner's dataset; None if the owner does not have it."""
        with self._file.reading() as database:
            return store_datasets.suffix_of(database, sha256, owner)

    def dataset_bytes(self, owner: str) -> int:
        """Bytes of all datasets of an owner."""
        with self._file.reading() as database:
            return store_datasets.bytes_of(database, owner)

    def is_linked(self, sha256: str) -> bool:
        """Whether any owner has a dataset: what `DatasetFiles.sweep` asks."""
        with self._file.reading() as database:
            return store_datasets.is_linked(database, sha256)

    def forget_datasets(self, before: float) -> list[str]:
        """Takes from their owners the datasets that no open job uses, and that were last uploaded or used before a time.

        Args:
            before: that time, in Unix seconds. A job uses its dataset until it has ended.

        Returns:
            Their sha256. Their files are for `DatasetFiles.sweep` to remove.
        """
        with self._file.writing() as database:
            return store_datasets.forget_datasets(database, before)

    def close(self) -> None:
        """Lets go of the store; another service may open it then. Closing once more does nothing."""
        self._file.close()

    def _remove_events(self) -> None:
        """Removes what deleted jobs have left, also those that a killed service had deleted. Others get a turn in between."""
        more = True
        while more:
            with self._file.writing() as database:
                more = store_events.remove_some(database)


def _state_event(state: JobState, reason: str, summary: dict[str, Any] | None, at: float) -> NewEvent:
    return NewEvent("state", at, {"state": state, "reason": reason, "summary": summary})
