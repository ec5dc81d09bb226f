"""The output folder of a run: DESIGN §7's files, written as the run goes and when it ends."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from shardsgd.coordinator.checkpoint import clear_checkpoints
from shardsgd.coordinator.files import write_arrays, write_atomically
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.records import StepRecord, Summary, ValidationRecord, as_json, finite
from shardsgd.errors import InputError, ResumeError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec, spec_toml

_STEP_FIELDS = tuple(field.name for field in fields(StepRecord))
_RESULTS = ("summary.json", "report.html", "parameters.safetensors")


class RunFolder:
    """Paths and writers of one run's files.

    Attributes:
        path: the folder.
        checkpoints: the folder of checkpoints within it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._metrics: IO[str] | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Owns the folder for the length of a block; makes it if it is not there.

        Raises:
            InputError: the folder cannot be written, or another run is writing to it.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be written: {error.strerror}") from None
        try:
            self._flock(handle)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def record(self, spec: JobSpec, *, resumed: TrainState | None) -> Iterator[None]:
        """Prepares the locked folder for a run, and takes its metrics for the length of a block.

        Args:
            spec: written to job.toml.
            resumed: where the run continues: metrics from before are kept, later ones, which will be computed again, are
                dropped. None starts afresh: what an earlier run left in the folder is removed.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            kept = self._kept_metrics(resumed) if resumed else []
            if resumed is None:
                clear_checkpoints(self.checkpoints)
            for name in _RESULTS:
                (self.path / name).unlink(missing_ok=True)
            write_atomically(self.path / "job.toml", spec_toml(spec).encode())
            write_atomically(self._metrics_path, "".join(kept).encode())
            metrics = self._metrics_path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be written: {error}") from None
        # For as long as the run goes this frame waits, and would keep a state of the size of the model.
        del resumed, kept
        with metrics as self._metrics:
            yield
        self._metrics = None

    @property
    def unfinished(self) -> bool:
        """Whether an earlier run left checkpoints here from which it could go on, and has not succeeded."""
        try:
            state = json.loads((self.path / "summary.json").read_bytes()).get("state")
        except (OSError, ValueError, AttributeError):
            state = None
        return state != "SUCCEEDED" and any(self.checkpoints.glob("step-*.safetensors"))

    @property
    def _metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def read_spec(self) -> JobSpec:
        """The spec of an earlier run in this folder.

        Raises:
            ResumeError: there is none.
        """
        path = self.path / "job.toml"
        if not path.is_file():
            raise ResumeError(f"--resume {self.path}: no run to resume here (no job.toml)")
        return read_spec(path)

    def append(self, record: StepRecord | ValidationRecord) -> None:
        """A line of metrics.jsonl."""
        assert self._metrics is not None, "the folder is open"
        if isinstance(record, StepRecord):
            line = vars(record)
        else:
            values = {"loss": record.loss, "accuracy": record.accuracy}
            line = {"step": record.step, "epoch": record.epoch, "validation": values}
        try:
            text = json.dumps(line, allow_nan=False)
        except ValueError:
            text = json.dumps(finite(line), allow_nan=False)
        self._metrics.write(text + "\n")

    def flush(self, *, durable: bool = False) -> None:
        """Hands buffered metrics to the kernel; with `durable`, to the disk."""
        assert self._metrics is not None, "the folder is open"
        self._metrics.flush()
        if durable:
            os.fsync(self._metrics.fileno())

    def read_metrics(self) -> tuple[list[StepRecord], list[ValidationRecord]]:
        """The records of metrics.jsonl, those of the run's earlier sessions included."""
        self.flush()
        steps, validations = [], []
        with self._metrics_path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if "validation" in record:
                    validations.append(ValidationRecord(record["step"], record["epoch"], **record["validation"]))
                else:
                    known = {name: record.get(name) for name in _STEP_FIELDS}
                    # What JSON could not hold was not finite.
                    numbers = {name: math.nan for name in ("loss", "gradient_norm") if known[name] is None}
                    steps.append(StepRecord(**known | numbers))
        return steps, validations

    def write_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """parameters.safetensors."""
        write_arrays(self.path / "parameters.safetensors", arrays)

    def write_summary(self, summary: Summary) -> None:
        """summary.json."""
        write_atomically(self.path / "summary.json", (json.dumps(as_json(summary), indent=2) + "\n").encode())

    def _flock(self, handle: int) -> None:
        try:
            # The lock is on the folder itself: no lock file to leave behind, and the kernel frees it however the run ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--out {self.path}: another run is writing to this folder") from None
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be locked: {error.strerror}") from None

    def _kept_metrics(self, state: TrainState) -> list[str]:
        """Lines of metrics.jsonl that a state has behind it; a line cut off by a crash is dropped."""
        if not self._metrics_path.is_file():
            return []
        kept = []
        with self._metrics_path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break
                before = (
                    record["epoch"] <= state.progress.epochs if "validation" in record else record["step"] < state.step
                )
                if before:
                    kept.append(line)
        return kept
