"""The output folder of a run: DESIGN §7's files, written as the run goes and when it ends."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import safetensors.numpy
from numpy.typing import NDArray

from shardsgd.coordinator.checkpoint import clear_checkpoints
from shardsgd.coordinator.files import write_atomically
from shardsgd.coordinator.records import StepRecord, Summary, ValidationRecord
from shardsgd.errors import InputError, ResumeError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec, spec_toml

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
    def open(self, *, keep_steps: int | None) -> Iterator[None]:
        """Owns the folder and its metrics.jsonl for the length of a block.

        Args:
            keep_steps: None starts afresh: what an earlier run left in the folder is removed. A number continues: metrics of
                earlier steps are kept, later ones, which will be computed again, are dropped.

        Raises:
            InputError: the folder cannot be written, or another run is writing to it.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be written: {error.strerror}") from None
        try:
            # The lock is on the folder itself: no lock file to leave behind, and the kernel frees it however the run ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(f"--out {self.path}: another run is writing to this folder") from None
        try:
            kept = self._kept_metrics(keep_steps) if keep_steps is not None else []
            if keep_steps is None:
                clear_checkpoints(self.checkpoints)
            for name in _RESULTS:
                (self.path / name).unlink(missing_ok=True)
            self._metrics_path.write_text("".join(kept), encoding="utf-8")
            with self._metrics_path.open("a", encoding="utf-8") as self._metrics:
                yield
        finally:
            self._metrics = None
            os.close(handle)

    @property
    def _metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def write_spec(self, spec: JobSpec) -> None:
        """job.toml."""
        write_atomically(self.path / "job.toml", spec_toml(spec).encode())

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
            line = asdict(record)
        else:
            values = {"loss": record.loss, "accuracy": record.accuracy}
            line = {"step": record.step, "epoch": record.epoch, "validation": values}
        self._metrics.write(json.dumps(_finite(line), allow_nan=False) + "\n")

    def flush(self) -> None:
        """Hands buffered metrics to the kernel."""
        assert self._metrics is not None, "the folder is open"
        self._metrics.flush()

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
                    # What JSON could not hold was not finite.
                    numbers = {name: math.nan for name in ("loss", "gradient_norm") if record[name] is None}
                    steps.append(StepRecord(**record | numbers))
        return steps, validations

    def write_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """parameters.safetensors."""
        write_atomically(self.path / "parameters.safetensors", safetensors.numpy.save(dict(arrays)))

    def write_summary(self, summary: Summary) -> None:
        """summary.json."""
        write_atomically(self.path / "summary.json", (json.dumps(summary_json(summary), indent=2) + "\n").encode())

    def _kept_metrics(self, steps: int) -> list[str]:
        """Lines of metrics.jsonl that stand before step `steps`; a line cut off by a crash is dropped."""
        if not self._metrics_path.is_file():
            return []
        kept = []
        with self._metrics_path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break
                if record["step"] < steps + ("validation" in record):
                    kept.append(line)
        return kept


def summary_json(summary: Summary) -> dict[str, Any]:
    """A summary as the object that is written to disk and printed by `--json`."""
    return {field.name: _finite(getattr(summary, field.name)) for field in fields(summary)} | {
        "gradient_noise": _finite(asdict(summary.gradient_noise))
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
