"""Which steps a run has done and when, in a file that `kill -9` cuts nowhere: one write a step, no buffer."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

from shardsgd.coordinator.records import Pace, Silent, StepRecord

_RECORD = struct.Struct("<qd")


class Done(NamedTuple):
    """A step, and when it was done by the system's monotonic clock, which all processes share."""

    step: int
    at: float


class StepLog(Silent):
    """An observer that writes such a file, from the first step on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Enters the step."""
        del pace
        if self._handle is None:
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._handle, _RECORD.pack(record.step, time.monotonic()))


def read_steps(path: Path) -> list[Done]:
    """What such a file holds; nothing if no step was done."""
    content = path.read_bytes() if path.exists() else b""
    return [Done(*fields) for fields in _RECORD.iter_unpack(content)]


def steps_done(path: Path) -> int:
    """How many steps such a file holds."""
    return path.stat().st_size // _RECORD.size if path.exists() else 0


def steps_per_second(steps: list[Done]) -> float:
    """From the first step's end to the last one's."""
    return (len(steps) - 1) / (steps[-1].at - steps[0].at)
