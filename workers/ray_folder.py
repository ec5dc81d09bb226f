"""The folder of a private Ray, and the reaper that watches over it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shardsgd.workers import ray_reaper

_PREFIX = "shardsgd-ray-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, readable by this user only, for the length of a block.

    With the block's end, or this process's, however it dies, the folder is removed and every process killed that belongs to its
    Ray: that has been started with the folder's name in the environment variable `ray_reaper.FOLDER_VARIABLE`.

    Raises:
        OSError: the folder could not be made, or no process could be started.
    """
    # Ray puts Unix sockets below it, whose paths the kernel cuts at 107 bytes: a long TMPDIR would not do.
    # Resolved, because the reaper compares it with what the kernel says of open files.
    root = Path("/tmp").resolve()  # noqa: S108  (mkdtemp makes a folder of our own in it)
    for stale in root.glob(f"{_PREFIX}*"):
        _sweep(stale)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
    with os.fdopen(ray_reaper.lock(str(folder), wait=False)):
        reaper = None
        try:
            reaper = _start_reaper(folder)
            yield folder
        finally:
            # Should this be interrupted, the reaper does the rest: the lock is free then.
            ray_reaper.clean(str(folder))
            if reaper is not None:
                reaper.kill()
                reaper.wait()


def _start_reaper(folder: Path) -> subprocess.Popen[bytes]:
    """Out of a terminal's reach: Ctrl-C and a shell's pipe are the run's."""
    return subprocess.Popen(  # noqa: S603  (this file's neighbour, run by this very Python)
        [sys.executable, "-I", "-S", ray_reaper.__file__, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _sweep(folder: Path) -> None:
    """Cleans up after a run that was killed together with its reaper; another run may be doing so too."""
    owner = folder.name.removeprefix(_PREFIX).split("-")[0]
    # A run that is about to take the lock is told by its process, one that this process cannot see by the lock.
    with suppress(OSError):
        if Path(f"/proc/{owner}").exists() or folder.stat().st_uid != os.getuid():
            return
        with os.fdopen(ray_reaper.lock(str(folder), wait=False)):
            ray_reaper.clean(str(folder))
