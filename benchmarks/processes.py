"""Processes below this one: finding them, how much memory they use, and ending every one of them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05


class Process(NamedTuple):
    """A process for as long as it lives: the kernel may use its number again, but not with the same start time."""

    pid: int
    started: int


def adopt_orphans() -> None:
    """Makes processes whose parent dies children of this one, so that `descendants` still finds them."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants(pid: int) -> list[Process]:
    """The processes below one, parents before children."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _process(int(entry.name))):
            process, parent = found
            children.setdefault(parent, []).append(process)
    found_below: list[Process] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found_below += below
        waiting += [process.pid for process in below]
    return found_below


def command_line(pid: int) -> str:
    """What `ps` shows of a process; empty if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def end(processes: Iterable[Process], grace_seconds: float) -> None:
    """Waits until processes have ended by themselves, and kills those that have not in time."""
    deadline = time.monotonic() + grace_seconds
    left = list(processes)
    while left := [process for process in left if _lives(process)]:
        if time.monotonic() > deadline:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _lives(process: Process) -> bool:
    with suppress(ChildProcessError):  # not a child of ours, or somebody waited for it already
        os.waitpid(process.pid, os.WNOHANG)
    found = _process(process.pid)
    return found is not None and found[0] == process


def _process(pid: int) -> tuple[Process, int] | None:
    """A process and its parent's number; None if there is none, or only what its parent has not asked for yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else (Process(pid, int(fields[19])), int(fields[1]))
