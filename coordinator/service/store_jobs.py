"""Rows of jobs: SQL in one direction and records in the other. Everything here runs inside a transaction of `StoreFile`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from shardsgd.coordinator.records import finite
from shardsgd.coordinator.service.jobs import JobGoneError, JobRecord, NewJob
from shardsgd.coordinator.service.states import Intent, JobState

_FIELDS = tuple(field.name for field in fields(JobRecord))
# Two statements, because one for both could not use the index of owners.
_PAGE_OF_ALL = """
SELECT * FROM records WHERE number < :before AND state IN (SELECT value FROM json_each(:states))
ORDER BY number DESC LIMIT :limit
"""
_PAGE_OF_ONE = """
SELECT * FROM records WHERE owner = :owner AND number < :before AND state IN (SELECT value FROM json_each(:states))
ORDER BY number DESC LIMIT :limit
"""
_NEWEST = 2**63 - 1


def insert_job(database: sqlite3.Connection, job: NewJob) -> int:
    """Records a new job, without events. Returns its number."""
    record = JobRecord(**vars(job))
    cursor = database.execute(
        "INSERT INTO jobs (job_id, owner, request_id, fingerprint, spec_toml, priority, workers, created_at, state, reason,"
        " intent, runs) VALUES (:job_id, :owner, :request_id, :fingerprint, :spec_toml, :priority, :workers, :created_at,"
        " :state, :reason, :intent, :runs)",
        vars(record),
    )
    number = cursor.lastrowid
    assert number is not None
    database.execute(
        "INSERT INTO heads (job, last_sequence, step, validation, incident) VALUES (?, 0, -1, -1, -1)", (number,)
    )
    return number


def update_job(database: sqlite3.Connection, number: int, record: JobRecord) -> None:
    """Records what may change of a job, other than by its events."""
    database.execute(
        "UPDATE jobs SET state = :state, reason = :reason, intent = :intent, started_at = :started_at, ended_at = :ended_at,"
        " runs = :runs, summary = :summary, scale = :scale WHERE number = :number",
        vars(record) | {"summary": None if record.summary is None else json_text(record.summary), "number": number},
    )


def numbered(database: sqlite3.Connection, job_id: str) -> tuple[int, JobRecord]:
    """A job's number and record.

    Raises:
        JobGoneError: there is no such job.
    """
    row = database.execute("SELECT * FROM records WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobGoneError(job_id)
    return row["number"], record_of(row)


def of_request(database: sqlite3.Connection, owner: str, request_id: str) -> JobRecord | None:
    """The job that a request made; None if it made none."""
    row = database.execute(
        "SELECT * FROM records WHERE request_id != '' AND owner = ? AND request_id = ?", (owner, request_id)
    ).fetchone()
    return row and record_of(row)


def count_open(database: sqlite3.Connection, owner: str) -> int:
    """How many of an owner's jobs have not ended."""
    query = "SELECT count(*) FROM jobs WHERE owner = ? AND ended_at IS NULL"
    return int(database.execute(query, (owner,)).fetchone()[0])


def open_jobs(database: sqlite3.Connection) -> list[JobRecord]:
    """All jobs that have not ended, the oldest first."""
    rows = database.execute("SELECT * FROM records WHERE ended_at IS NULL ORDER BY number")
    return [record_of(row) for row in rows]


def page_of_jobs(
    database: sqlite3.Connection, owner: str | None, states: Collection[JobState], before: int | None, limit: int
) -> tuple[list[JobRecord], int | None]:
    """A page of jobs, and where the next one begins: see `JobStore.page`."""
    rows = database.execute(
        _PAGE_OF_ALL if owner is None else _PAGE_OF_ONE,
        {
            "owner": owner,
            "before": _NEWEST if before is None else before,
            "states": json.dumps(list(states or JobState)),
            "limit": limit + 1,
        },
    ).fetchall()
    page = rows[:limit]
    return [record_of(row) for row in page], page[-1]["number"] if len(rows) > limit else None


def record_of(row: sqlite3.Row) -> JobRecord:
    """A row of the view `records` as a record."""
    values = {name: row[name] for name in _FIELDS}
    for name in ("progress", "summary"):
        values[name] = values[name] and json.loads(values[name])
    return JobRecord(**values | {"state": JobState(values["state"]), "intent": Intent(values["intent"])})


def json_text(value: dict[str, Any]) -> str:
    """A value as JSON, whatever it contains: what is no number becomes null, what is no text a question mark."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return as_text(text)


def as_text(text: str) -> str:
    """Text that every encoder takes: bytes that a file name or an error message could not decode become question marks."""
    return text.encode(errors="replace").decode()
