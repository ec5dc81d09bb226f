"""What a run leaves behind when it ends: nothing, or what it is."""

from __future__ import annotations

import os
import select
import shutil
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.processes import command_line, descendants

LIMIT_S = 5.0
_POLL_S = 0.1
_ROOT, _SHARED = Path("/tmp"), Path("/dev/shm")


def shared_memory() -> frozenset[str]:
    """Segments with a name."""
    return frozenset(path.name for path in _SHARED.iterdir())


def processes_gone(limit_s: float = LIMIT_S) -> tuple[float, list[str]]:
    """Waits until this process has none below it; how long that took, and those that are still there after the limit.

    Orphans count, since this process adopts them (`adopt_orphans`).
    """
    began = time.monotonic()
    while left := descendants(os.getpid()):
        if time.monotonic() - began > limit_s:
            return limit_s, [f"{process.pid} {command_line(process.pid)}" for process in left]
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(left[0].pid)
            select.select([handle], [], [], _POLL_S)
            os.close(handle)
        for process in left:
            with suppress(ChildProcessError):  # a grandchild, as long as its parent lives
                os.waitpid(process.pid, os.WNOHANG)
    return time.monotonic() - began, []


def things_left(pid: int, segments_before: frozenset[str]) -> list[str]:
    """Folders, sockets and shared memory of a run whose process has ended.

    Args:
        pid: of that process.
        segments_before: what `shared_memory` was before the run.
    """
    folders = [str(path) for path in _ROOT.glob(f"shardsgd-ray-{pid}-*")]
    sockets = [line.split()[-1] for line in _sockets() if f"shardsgd-ray-{pid}-" in line]
    segments = [f"{_SHARED}/{name}" for name in shared_memory() - segments_before if not _is_mapped(name)]
    return folders + sockets + segments


def remove_folders(pid: int) -> None:
    """Removes Ray's folders of a run that was ended together with all that would have done so."""
    for path in _ROOT.glob(f"shardsgd-ray-{pid}-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sockets() -> list[str]:
    return Path("/proc/net/unix").read_text().splitlines()


def _is_mapped(name: str) -> bool:
    """Whether a living process, somebody else's then, has a segment mapped."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if f"{_SHARED}/{name}" in maps.read_text():
                return True
    return False
