"""Memory without a name, shared by handing over a file descriptor: when its last user is gone, however it went, so is it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from shardsgd.errors import JobError
from shardsgd.model.layout import Flat, Layout

_CGROUP = Path("/sys/fs/cgroup")


class SharedBuffers:
    """Flat buffers side by side in one anonymous file (memfd), each on a page of its own.

    Pages take memory only once they are written to.

    Attributes:
        fd: the file; belongs to this object until `close`.
        count: of the buffers.
    """

    def __init__(self, fd: int, layout: Layout, count: int) -> None:
        self.fd = fd
        self.count = count
        self._layout = layout
        self._stride = _stride(layout)
        self._memory = mmap.mmap(fd, self._stride * count)
        self._buffers: dict[int, Flat] = {}

    @classmethod
    def create(cls, layout: Layout, count: int) -> Self:
        """New zeroed buffers."""
        fd = os.memfd_create("shardsgd", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _stride(layout) * count)
            return cls(fd, layout, count)
        except BaseException:
            os.close(fd)
            raise

    def buffer(self, number: int) -> Flat:
        """One buffer, as a view of the shared memory; the same array every time."""
        if number not in self._buffers:
            view: np.ndarray[Any, Any] = np.frombuffer(
                self._memory, self._layout.dtype, self._layout.length, number * self._stride
            )
            self._buffers[number] = view
        return self._buffers[number]

    def forget(self) -> None:
        """Gives the memory of all buffers back; they read as zeros until they are written again."""
        self._memory.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Closes the descriptor, once; the memory goes with the last view of it."""
        self._buffers.clear()
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
    free = min(_free_of_the_machine(), _free_of_the_cgroup())
    if needed > free:
        raise JobError(f"not enough memory for {what}: {needed:,} bytes are needed, {free:,} are free")


def _free_of_the_machine() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _free_of_the_cgroup(folder: Path = _CGROUP) -> float:
    """What a container's limit leaves (cgroup v2, as seen from inside); infinite where there is none.

    Pages of files count as free, as they do for a machine: the kernel takes them back before it refuses memory.
    """
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return float("inf")
    if limit == "max":
        return float("inf")
    stat = {name: int(value) for name, value in map(str.split, lines)}
    return max(0, int(limit) - int(used) + stat.get("inactive_file", 0) + stat.get("active_file", 0))
