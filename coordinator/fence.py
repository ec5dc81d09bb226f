"""Who may write to a run's folder: its newest incarnation, and nobody who held it before.

Each session of a run is an incarnation, with a number one above the last. The file `incarnation` names the newest; its session
keeps that very file locked, so that the kernel says whether it lives, and a take-over, which puts another file in its place,
leaves the old lock to mean nothing. Checks, changes and take-overs exclude each other by a short lock on the folder that holds
the file: between a check and the change that it allows there is no time at which the folder could change hands.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from shardsgd.coordinator.files import remove_temporary, write_atomically
from shardsgd.errors import InputError, TakenOverError

_NAME = "incarnation"
# For a lock that is held for microseconds, unless its holder was stopped right then.
_PATIENCE_S = 2.0
_POLL_S = 0.02


@dataclass(frozen=True)
class Incarnation:
    """One session of a run.

    Attributes:
        number: 1 for a folder's first, then one more each.
        pid: of its process.
        host: where that process runs.
        started: UTC, as ISO 8601 text.
    """

    number: int
    pid: int
    host: str
    started: str

    @classmethod
    def after(cls, last: Self | None) -> Self:
        """This process's, to follow another."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(1 if last is None else last.number + 1, os.getpid(), socket.gethostname(), started)


class Fence:
    """The right to write to a run's folder, for as long as nobody else takes it."""

    def __init__(self, folder: Path, run: Path, own: Incarnation) -> None:
        self._folder = folder
        self._run = run
        self._own = own

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which the folder is still one's own, and nobody can take it. Keep it short: everybody else waits.

        Raises:
            TakenOverError: somebody has taken it.
            OSError: the folder is gone.
        """
        with _opened(self._folder) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            newest = _newest(self._folder)
            if newest != self._own:
                raise TakenOverError(
                    f"another run (incarnation {newest.number}, pid {newest.pid}) has taken over {self._run}; "
                    "this one stops and has written nothing since"
                )
            yield


@contextmanager
def claim(folder: Path, run: Path, *, take_over: bool) -> Iterator[Fence]:
    """Makes this session the newest incarnation of a run; it is known to be alive for the length of a block.

    Args:
        folder: where the incarnation is written down; exists.
        run: the run's folder, for messages.
        take_over: also from a session that is still alive.

    Raises:
        InputError: another session is alive and not to be replaced, or it was stopped at a moment at which it cannot be.
        OSError: the folder cannot be written or locked.
    """
    with _opened(folder) as short:
        _lock_soon(short, folder, run)
        path = folder / _NAME
        last = _newest(folder) if path.exists() else None
        if last is not None and not take_over and _is_alive(path):
            raise InputError(
                f"--out {run}: another run is writing to this folder ({_words(last)}). If it hangs, "
                f"shardsgd train --resume {run} --take-over goes on in its place"
            )
        own = Incarnation.after(last)
        write_atomically(path, (json.dumps(asdict(own)) + "\n").encode())
        remove_temporary(folder, _NAME)
        # Nobody locks this file without the short lock, so that it is free.
        life = os.open(path, os.O_RDONLY)
        fcntl.flock(life, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield Fence(folder, run, own)
    finally:
        os.close(life)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file or folder to lock; closed, and so unlocked, at the end."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock_soon(handle: int, folder: Path, run: Path) -> None:
    """Takes the short lock; whoever holds it for long was stopped with it in hand."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise InputError(
                    f"--out {run}: another run is writing to this folder: {_words(_newest(folder))} was stopped in the "
                    "middle of that, where nobody can take over; it must go on or end (kill -9) first"
                ) from None
            time.sleep(_POLL_S)


def _is_alive(path: Path) -> bool:
    """Whether the session that put this file here still holds it."""
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _newest(folder: Path) -> Incarnation:
    path = folder / _NAME
    try:
        return Incarnation(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise OSError(f"{path} is damaged ({error}); remove it if no run writes to this folder") from None


def _words(incarnation: Incarnation) -> str:
    return f"incarnation {incarnation.number}, pid {incarnation.pid} on {incarnation.host}"
