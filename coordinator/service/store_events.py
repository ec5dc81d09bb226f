"""Events of a job: numbered 1, 2, 3, … without gap, each once. Everything here runs inside a transaction of `StoreFile`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shardsgd.coordinator.service.jobs import Event, NewEvent, Position
from shardsgd.coordinator.service.store_jobs import json_text

# Removed at a time: some 20 ms.
_PIECE = 2_000


def fresh(events: Sequence[NewEvent], position: Position) -> tuple[list[NewEvent], Position]:
    """Which events are new, of a run that may have gone back to a checkpoint and tells some steps again. Pure.

    Args:
        events: in order.
        position: how far the recorded ones go.

    Returns:
        The new ones, and how far all go with them.
    """
    kept = []
    for event in events:
        if event.kind in ("metrics", "validation", "incident"):
            name = "step" if event.kind == "metrics" else event.kind
            last, step = getattr(position, name), event.body["step"]
            if step <= last and event.kind != "incident":
                continue
            position = replace(position, **{name: max(step, last)})
        kept.append(event)
    return kept, position


def append_events(database: sqlite3.Connection, job: int, events: Sequence[NewEvent]) -> int:
    """Records events of the job of this number, those that are new. Returns the number of the last event there is."""
    head = database.execute("SELECT * FROM heads WHERE job = ?", (job,)).fetchone()
    kept, position = fresh(events, Position(head["step"], head["validation"], head["incident"]))
    last: int = head["last_sequence"]
    if not kept:
        return last
    bodies = [json_text(event.body) for event in kept]
    database.executemany(
        "INSERT INTO events (job, sequence, kind, at, body) VALUES (?, ?, ?, ?, ?)",
        [
            (job, sequence, event.kind, event.at, body)
            for sequence, (event, body) in enumerate(zip(kept, bodies, strict=True), start=last + 1)
        ],
    )
    measured = [body for event, body in zip(kept, bodies, strict=True) if event.kind == "metrics"]
    database.execute(
        "UPDATE heads SET last_sequence = ?, step = ?, validation = ?, incident = ?, progress = coalesce(?, progress)"
        " WHERE job = ?",
        (
            last + len(kept),
            position.step,
            position.validation,
            position.incident,
            measured[-1] if measured else None,
            job,
        ),
    )
    return last + len(kept)


def position_of(database: sqlite3.Connection, job_id: str) -> Position | None:
    """How far the recorded events of a job go; None if there is no such job."""
    row = database.execute("SELECT step, validation, incident FROM records WHERE job_id = ?", (job_id,)).fetchone()
    return row and Position(*row)


def read_events(database: sqlite3.Connection, job_id: str, after: int, limit: int) -> list[Event]:
    """At most so many events of a job, those after a number."""
    rows = database.execute(
        "SELECT kind, at, body, sequence FROM events WHERE job = (SELECT number FROM jobs WHERE job_id = ?)"
        " AND sequence > ? ORDER BY sequence LIMIT ?",
        (job_id, after, limit),
    )
    return [Event(kind, at, json.loads(body), sequence) for kind, at, body, sequence in rows]


def remove_some(database: sqlite3.Connection) -> bool:
    """Removes a piece of the events of deleted jobs. Returns whether there may be more."""
    row: Any = database.execute("SELECT min(job) FROM deleted").fetchone()
    job = row[0]
    if job is None:
        return False
    last = database.execute(
        "SELECT max(sequence) FROM (SELECT sequence FROM events WHERE job = ? ORDER BY sequence LIMIT ?)", (job, _PIECE)
    ).fetchone()[0]
    if last is None:
        database.execute("DELETE FROM deleted WHERE job = ?", (job,))
    else:
        database.execute("DELETE FROM events WHERE job = ? AND sequence <= ?", (job, last))
    return True
