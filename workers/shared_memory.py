"""Memory without a name, shared by handing over a file descriptor: when its last user is gone, however it went, so is it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from shardsgd.errors import JobError
from shardsgd.model.layout import Flat, Layout


class SharedBuffers:
    """Flat parameter or gradient buffers side by side in one anonymous file (memfd), each on a page of its own.

    Pages take memory only once they are written to.

    Attributes:
        fd: the file; belongs to this object until `close`.
    """

    def __init__(self, fd: int, layout: Layout, count: int) -> None:
        self.fd = fd
        self._layout = layout
        self._stride = _stride(layout)
        self._memory = mmap.mmap(fd, self._stride * count)

    @classmethod
    def create(cls, layout: Layout, count: int) -> Self:
        """New zeroed buffers."""
        fd = os.memfd_create("shardsgd", os.MFD_CLOEXEC)
        os.ftruncate(fd, _stride(layout) * count)
        return cls(fd, layout, count)

    def buffer(self, number: int) -> Flat:
        """One buffer, as a view of the shared memory."""
        view: np.ndarray[Any, Any] = np.frombuffer(
            self._memory, self._layout.dtype, self._layout.length, number * self._stride
        )
        return view

    def close(self) -> None:
        """Closes the descriptor, once; the memory goes with the last view of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _stride(layout: Layout) -> int:
    return -(-layout.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def check_memory(needed: int, what: str) -> None:
    """Refuses what would not fit, before anything is written to memory that can only be overcommitted.

    Raises:
        JobError: naming the bytes needed and free.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    if needed > free:
        raise JobError(f"not enough memory for {what}: {needed:,} bytes are needed, {free:,} are free")
