"""Waiting for a file to appear: Linux's inotify."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from pathlib import Path
from typing import Self

_IN_CREATE = 0x100
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 16


class FolderWatch:
    """Sees the files that are made in a folder from now on."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_CLOEXEC)
        if self._handle < 0 or libc.inotify_add_watch(self._handle, os.fsencode(folder), _IN_CREATE) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(folder))

    def __enter__(self) -> Self:
        """For the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def wait_for(self, prefix: str, process: int, limit_s: float) -> bool:
        """Returns as soon as a file is made whose name begins so; False if a process ends first, or time is up.

        Args:
            prefix: of the name.
            process: a pidfd.
            limit_s: when time is up.
        """
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._handle, process], [], [], left)
            if self._handle in ready and any(name.startswith(prefix) for name in self._names()):
                return True
            if process in ready:
                return False
        return False

    def _names(self) -> list[str]:
        events, names, position = os.read(self._handle, _BUFFER), [], 0
        while position < len(events):
            length = _EVENT.unpack_from(events, position)[3]
            start = position + _EVENT.size
            names.append(os.fsdecode(events[start : start + length].rstrip(b"\0")))
            position = start + length
        return names
