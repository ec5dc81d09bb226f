"""What the tables of the job store are, and the database of an empty one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

VERSION = 1
# Small enough to be looked through whenever the store is opened.
CHECKED = ("jobs", "heads", "datasets", "uses")

# jobs.number is the order of acceptance; it is never used again, so that what is left of a deleted job cannot become another's.
# heads is what every event changes: short rows, where a row of jobs with its spec may be long.
# events has no foreign key: a deleted job's are removed piece by piece after it, so that nobody waits for a million of them.
# deleted says whose events are still to be removed.
_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    spec_toml TEXT NOT NULL,
    priority INTEGER NOT NULL,
    workers INTEGER NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    intent TEXT NOT NULL,
    started_at REAL,
    ended_at REAL,
    runs INTEGER NOT NULL,
    summary TEXT,
    scale INTEGER
);
CREATE UNIQUE INDEX jobs_by_request ON jobs (owner, request_id) WHERE request_id != '';
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX jobs_by_end ON jobs (ended_at, owner);

CREATE TABLE heads (
    job INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
    last_sequence INTEGER NOT NULL,
    step INTEGER NOT NULL,
    validation INTEGER NOT NULL,
    incident INTEGER NOT NULL,
    progress TEXT
);

CREATE TABLE events (
    job INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at REAL NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, sequence)
) WITHOUT ROWID;
CREATE TABLE deleted (job INTEGER PRIMARY KEY);

CREATE TABLE datasets (
    sha256 TEXT NOT NULL,
    owner TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    suffix TEXT NOT NULL,
    touched_at REAL NOT NULL,
    PRIMARY KEY (sha256, owner)
) WITHOUT ROWID;
CREATE INDEX datasets_by_owner ON datasets (owner, size_bytes);
CREATE TABLE uses (
    job INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
    sha256 TEXT NOT NULL
);
CREATE INDEX uses_by_dataset ON uses (sha256);

CREATE VIEW records AS SELECT * FROM jobs JOIN heads ON job = number;
"""


def make_database(path: Path) -> None:
    """Makes the database of a store without jobs.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
