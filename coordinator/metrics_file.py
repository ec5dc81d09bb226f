"""metrics.jsonl: a line for each step and each evaluation of a run, over all its sessions."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple, Self

from shardsgd.coordinator.files import Guard, write_atomically
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.records import Incident, StepRecord, ValidationRecord, finite

# `json.dumps` makes an encoder at every call that is not of the plainest kind.
_encoded = json.JSONEncoder(allow_nan=False).encode
_STEP_FIELDS = tuple(field.name for field in fields(StepRecord))
_INCIDENT_FIELDS = tuple(field.name for field in fields(Incident) if field.name != "step")


class Metrics(NamedTuple):
    """What the file says, each oldest first."""

    steps: list[StepRecord]
    validations: list[ValidationRecord]
    incidents: list[Incident]


class MetricsFile:
    """The file as one session appends to it."""

    def __init__(self, path: Path, handle: int, guard: Guard) -> None:
        self._path = path
        self._handle = handle
        self._guard = guard
        self._lines: list[str] = []
        self._unwritten = b""

    @classmethod
    @contextmanager
    def opened(cls, path: Path, resumed: TrainState | None, guard: Guard) -> Iterator[Self]:
        """Puts a new file in the place of the last session's, whose handle so leads nowhere any more.

        Args:
            path: the file.
            resumed: where the run continues: lines from before are kept, later ones, which will be computed again, are
                dropped. None starts afresh.
            guard: held while something changes.

        Raises:
            OSError: the disk is full, or whatever else it says.
        """
        kept = _kept(path, resumed) if resumed else []
        write_atomically(path, "".join(kept).encode(), guard)
        # For as long as the run goes this frame waits, and would keep a state of the size of the model.
        del kept, resumed
        with guard():
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            metrics = cls(path, handle, guard)
            yield metrics
            metrics.flush()
        finally:
            os.close(handle)

    def append(self, record: StepRecord | ValidationRecord | Incident) -> None:
        """A line more, kept until the next `flush`."""
        if isinstance(record, StepRecord):
            line: dict[str, Any] = vars(record)
        elif isinstance(record, Incident):
            line = {"step": record.step, "incident": {name: x for name, x in vars(record).items() if name != "step"}}
        else:
            values = {"loss": record.loss, "accuracy": record.accuracy}
            line = {"step": record.step, "epoch": record.epoch, "validation": values}
        try:
            text = _encoded(line)
        except ValueError:
            text = _encoded(finite(line))
        self._lines.append(text + "\n")

    def flush(self) -> None:
        """Hands the lines kept so far to the kernel.

        Raises:
            TakenOverError: the folder is another session's.
            OSError: the disk is full, or whatever else it says.
        """
        self._unwritten += "".join(self._lines).encode()
        self._lines.clear()
        with self._guard():
            # Piece by piece, so that a disk that was full for a while leaves no line twice.
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._handle, self._unwritten) :]

    def sync(self) -> None:
        """Makes what was flushed durable. From any thread."""
        os.fsync(self._handle)

    def read(self) -> Metrics:
        """All of it, the run's earlier sessions included."""
        self.flush()
        read = Metrics([], [], [])
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if "incident" in record:
                    read.incidents.append(Incident(record["step"], **record["incident"]))
                elif "validation" in record:
                    read.validations.append(ValidationRecord(record["step"], record["epoch"], **record["validation"]))
                else:
                    known = {name: record.get(name) for name in _STEP_FIELDS}
                    # What JSON could not hold was not finite.
                    numbers: dict[str, Any] = {
                        name: math.nan for name in ("loss", "gradient_norm") if known[name] is None
                    }
                    if layers := known["layer_norms"]:
                        # The names are the same in every line: one copy of each does.
                        numbers["layer_norms"] = {intern(name): norm for name, norm in layers.items()}
                    read.steps.append(StepRecord(**known | numbers))
        return read


def _kept(path: Path, state: TrainState) -> list[str]:
    """Lines that a state has behind it; one that a crash cut off is dropped."""
    if not path.is_file():
        return []
    kept = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break
            if not line.endswith("\n"):
                break
            is_validation = "validation" in record
            if record["epoch"] <= state.progress.epochs if is_validation else record["step"] < state.step:
                kept.append(line)
    return kept
