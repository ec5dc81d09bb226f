"""The database file of a job store: made whole, held by one service, written durably."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shardsgd.coordinator.files import sync_folder
from shardsgd.coordinator.service.jobs import DiskFullError, StoreError
from shardsgd.coordinator.service.schema import CHECKED, VERSION, make_database

_NAME = "jobs.sqlite"
_LOCK = "service.lock"
_ELSE = "restore it from a backup, or begin with another folder"


class StoreFile:
    """The database, opened once for writing and once for reading, so that no reader waits for the disk. Thread-safe.

    Never open its file by other means than SQLite: closing such a handle would let go of SQLite's own locks.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the database of a folder; makes both where there is none.

        Raises:
            StoreError: it cannot be opened, is another service's, of a newer version, or damaged.
            DiskFullError: the disk is full.
        """
        self._path = folder / _NAME
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        with ExitStack() as stack, _in_words(self._path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _lock(folder, stack)
            _make(self._path)
            self._writer = _connect(self._path, stack)
            _check(self._writer, self._path)
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute("PRAGMA foreign_keys = ON")
            self._reader = _connect(self._path, stack)
            self._reader.execute("PRAGMA query_only = ON")
            # Opens the write-ahead log now, so that the first reader need not.
            self._reader.execute("SELECT count(*) FROM deleted").fetchone()
            self._open = stack.pop_all()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable at the end of the block, and without effect if it raises.

        Raises:
            DiskFullError: the disk is full.
            StoreError: the database cannot be used.
        """
        with self._writing, _in_words(self._path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # A serious failure has rolled it back already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For queries; each sees what is durable at its beginning.

        Raises:
            StoreError: the database cannot be used.
        """
        with self._reading, _in_words(self._path):
            yield self._reader

    def close(self) -> None:
        """Lets go of the database; another service may open it then. Closing once more does nothing."""
        with self._writing, self._reading:
            self._open.close()


def _lock(folder: Path, stack: ExitStack) -> None:
    """Holds the folder for this process: the kernel lets go of it however the process ends."""
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        raise StoreError(
            f"{folder}: another service (pid {holder}) uses this folder; end it first, or take another"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def _make(path: Path) -> None:
    """Makes an empty database where there is none: under another name first, so that half of one is never taken for damage."""
    log = path.with_name(f"{path.name}-wal")
    if path.exists():
        return
    if log.exists():
        raise StoreError(f"{path} is missing, but its newest part {log.name} is there: {_ELSE}")
    temporary = path.with_name(f".{path.name}")
    for leftover in (temporary, path.with_name(f"{temporary.name}-journal")):
        leftover.unlink(missing_ok=True)
    # SQLite gives its other files the mode of this one.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    make_database(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def _connect(path: Path, stack: ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
    stack.callback(connection.close)
    connection.row_factory = sqlite3.Row
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses what is not a whole job store of this version, before anything is changed."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StoreError(
            f"{path} is of version {version}, and this shardsgd knows {VERSION}: use the shardsgd that wrote it"
        )
    if version < 1:
        raise StoreError(f"{path} is not a job store: {_ELSE}")
    for table in CHECKED:
        found = connection.execute(f"PRAGMA quick_check({table})").fetchone()[0]
        if found != "ok":
            raise StoreError(f"{path} is damaged ({' '.join(found.split())}): {_ELSE}")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(f"{path}: its file system takes no write-ahead log (journal mode {mode}): take a local one")


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Raises what SQLite and the system say as errors of ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"{path}: the disk is full") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreError(f"{path} is damaged ({error}): {_ELSE}") from error
        raise StoreError(f"{path}: {error}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(f"{path}: the disk is full") from error
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
