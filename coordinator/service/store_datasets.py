"""Who has which dataset, and which jobs use it. Everything here runs inside a transaction of `StoreFile`."""

from __future__ import annotations

import sqlite3

from shardsgd.coordinator.service.jobs import DatasetGoneError

# A dataset counts as used until the last of its jobs has ended, and as touched then.
_UNUSED = """
SELECT sha256 FROM datasets GROUP BY sha256 HAVING max(touched_at) < :before
EXCEPT SELECT sha256 FROM uses JOIN jobs ON number = job WHERE ended_at IS NULL OR ended_at >= :before
"""


def link_dataset(
    database: sqlite3.Connection, sha256: str, owner: str, size_bytes: int, suffix: str, at: float
) -> None:
    """Records that an owner has a dataset, under its newest suffix; its size is the one recorded first."""
    database.execute(
        "INSERT INTO datasets (sha256, owner, size_bytes, suffix, touched_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET suffix = excluded.suffix, touched_at = max(touched_at, excluded.touched_at)",
        (sha256, owner, size_bytes, suffix, at),
    )


def touch_dataset(database: sqlite3.Connection, sha256: str, owner: str, at: float) -> bool:
    """Records that an owner's dataset was wanted at a time. Returns whether the owner has it."""
    query = "UPDATE datasets SET touched_at = max(touched_at, ?) WHERE sha256 = ? AND owner = ?"
    return database.execute(query, (at, sha256, owner)).rowcount > 0


def suffix_of(database: sqlite3.Connection, sha256: str, owner: str) -> str | None:
    """The suffix of an owner's dataset; None if the owner does not have it."""
    query = "SELECT suffix FROM datasets WHERE sha256 = ? AND owner = ?"
    row = database.execute(query, (sha256, owner)).fetchone()
    return None if row is None else str(row["suffix"])


def bytes_of(database: sqlite3.Connection, owner: str, except_sha256: str = "") -> int:
    """Bytes of all datasets of an owner, but for one."""
    query = "SELECT coalesce(sum(size_bytes), 0) FROM datasets WHERE owner = ? AND sha256 != ?"
    return int(database.execute(query, (owner, except_sha256)).fetchone()[0])


def is_linked(database: sqlite3.Connection, sha256: str) -> bool:
    """Whether any owner has a dataset."""
    return database.execute("SELECT 1 FROM datasets WHERE sha256 = ?", (sha256,)).fetchone() is not None


def use_dataset(database: sqlite3.Connection, job: int, owner: str, sha256: str, at: float) -> None:
    """Records that the job of this number uses a dataset of its owner.

    Raises:
        DatasetGoneError: the owner does not have it.
    """
    if not touch_dataset(database, sha256, owner, at):
        raise DatasetGoneError(sha256)
    database.execute("INSERT INTO uses (job, sha256) VALUES (?, ?)", (job, sha256))


def touch_used(database: sqlite3.Connection, job: int, at: float) -> None:
    """Keeps what a job used from counting as unused earlier than it would if the job had not been deleted."""
    database.execute(
        "UPDATE datasets SET touched_at = max(touched_at, ?) WHERE sha256 = (SELECT sha256 FROM uses WHERE job = ?)",
        (at, job),
    )


def forget_datasets(database: sqlite3.Connection, before: float) -> list[str]:
    """Nobody has any more what was last touched before a time: see `JobStore.forget_datasets`."""
    unused = sorted(row["sha256"] for row in database.execute(_UNUSED, {"before": before}))
    database.executemany("DELETE FROM datasets WHERE sha256 = ?", [(sha256,) for sha256 in unused])
    return unused
