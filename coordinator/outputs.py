"""The output folder of a run: DESIGN §7's files, written as the run goes and when it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from shardsgd.coordinator.arrays_file import write_arrays
from shardsgd.coordinator.checkpoint import has_checkpoint, sweep_checkpoints
from shardsgd.coordinator.fence import Fence, claim
from shardsgd.coordinator.files import remove_temporary, write_atomically
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.metrics_file import Metrics, MetricsFile
from shardsgd.coordinator.records import Incident, StepRecord, Summary, ValidationRecord, as_json
from shardsgd.errors import InputError, ResumeError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec, spec_toml

_SPEC, _METRICS = "job.toml", "metrics.jsonl"
_PARAMETERS, _SUMMARY = "parameters.safetensors", "summary.json"
_RESULTS = (_PARAMETERS, _SUMMARY, "report.html")


class RunFolder:
    """Paths and writers of one run's files.

    Attributes:
        path: the folder.
        checkpoints: the folder of checkpoints within it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._fence: Fence | None = None
        self._metrics: MetricsFile | None = None

    @contextmanager
    def lock(self, *, take_over: bool = False) -> Iterator[None]:
        """Owns the folder for the length of a block, or until somebody takes it over; makes it if it is not there.

        Args:
            take_over: own it even if another session is alive; that one can change nothing here any more.

        Raises:
            InputError: the folder cannot be written, or another session writes to it.
        """
        with ExitStack() as stack:
            try:
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                self._fence = stack.enter_context(claim(self.checkpoints, self.path, take_over=take_over))
            except OSError as error:
                raise InputError(f"--out {self.path}: cannot be written: {error.strerror or error}") from None
            stack.callback(self._unlock)
            yield

    def guard(self) -> AbstractContextManager[None]:
        """A block in which the locked folder is this session's own; everything that changes it goes through one.

        Raises:
            TakenOverError: another session has taken it over.
        """
        assert self._fence is not None, "the folder is locked"
        return self._fence.held()

    @contextmanager
    def record(self, spec: JobSpec, *, resumed: TrainState | None) -> Iterator[None]:
        """Prepares the locked folder for a run, and takes its metrics for the length of a block.

        Args:
            spec: written to job.toml.
            resumed: where the run continues: metrics and checkpoints from before are kept, later ones, which will be
                computed again or are damaged, are dropped. None starts afresh: what an earlier run left is removed.

        Raises:
            InputError: the folder cannot be written.
            TakenOverError: another session has taken it over.
        """
        with ExitStack() as stack:
            try:
                self._sweep(spec.checkpoint.keep if resumed else 0, resumed.step if resumed else 0)
                write_atomically(self.path / _SPEC, spec_toml(spec).encode(), self.guard)
                metrics = MetricsFile.opened(self.path / _METRICS, resumed, self.guard)
                self._metrics = stack.enter_context(metrics)
            except OSError as error:
                raise InputError(f"--out {self.path}: cannot be written: {error}") from None
            # For as long as the run goes this frame waits, and would keep a state of the size of the model.
            del resumed
            yield
        self._metrics = None

    @property
    def unfinished(self) -> bool:
        """Whether an earlier run left checkpoints here from which it could go on, and has not succeeded."""
        try:
            state = json.loads((self.path / _SUMMARY).read_bytes()).get("state")
        except (OSError, ValueError, AttributeError):
            state = None
        return state != "SUCCEEDED" and has_checkpoint(self.checkpoints)

    def read_spec(self) -> JobSpec:
        """The spec of an earlier run in this folder.

        Raises:
            ResumeError: there is none.
        """
        path = self.path / _SPEC
        if not path.is_file():
            raise ResumeError(f"--resume {self.path}: no run to resume here (no {_SPEC})")
        return read_spec(path)

    def append(self, record: StepRecord | ValidationRecord | Incident) -> None:
        """A line of metrics.jsonl, written by the next `flush`."""
        self._open_metrics.append(record)

    def flush(self) -> None:
        """Hands the lines of metrics.jsonl so far to the kernel.

        Raises:
            TakenOverError: another session has taken the folder over.
        """
        self._open_metrics.flush()

    def sync(self) -> None:
        """Makes what was flushed durable. From any thread."""
        self._open_metrics.sync()

    def read_metrics(self) -> Metrics:
        """The records of metrics.jsonl, those of the run's earlier sessions included."""
        return self._open_metrics.read()

    def write_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """parameters.safetensors."""
        write_arrays(self.path / _PARAMETERS, arrays, self.guard)

    def write_summary(self, summary: Summary) -> None:
        """summary.json."""
        content = json.dumps(as_json(summary), indent=2) + "\n"
        write_atomically(self.path / _SUMMARY, content.encode(), self.guard)

    def _unlock(self) -> None:
        self._fence = None

    @property
    def _open_metrics(self) -> MetricsFile:
        assert self._metrics is not None, "the folder records a run"
        return self._metrics

    def _sweep(self, checkpoints: int, until: int) -> None:
        """Removes results, all but so many checkpoints, and what a killed session left half-written."""
        with self.guard():
            sweep_checkpoints(self.checkpoints, keep=checkpoints, until=until)
            for name in _RESULTS:
                (self.path / name).unlink(missing_ok=True)
            for name in (_SPEC, _METRICS, *_RESULTS):
                remove_temporary(self.path, name)
