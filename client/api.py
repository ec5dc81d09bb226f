"""Training from Python: the function behind `shardsgd train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardsgd.coordinator.records import Silent
from shardsgd.errors import InterruptedJobError
from shardsgd.spec import JobSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shardsgd.coordinator.records import Observer, Summary


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        summary: how it ended, as in summary.json.
        parameters: final arrays by name, such as `layer0.weight` [features, units].
        out: the folder with the run's files.
    """

    summary: Summary
    parameters: Mapping[str, NDArray[Any]]
    out: Path


def default_out(spec: JobSpec) -> Path:
    """Where a run's files go unless told otherwise."""
    return Path("runs") / spec.name


def train(
    spec: JobSpec,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Trains in local multi-process mode and writes the run's files.

    Uses the Ray this process is connected to, if it is; otherwise starts one for the run and stops it afterwards.

    Args:
        spec: what to train.
        out: folder for the run's files; `runs/NAME` if None.
        resume: continue the interrupted run in `out`; it ends in the same bits as if it had not been interrupted.
        observer: called as the run goes; see `shardsgd.coordinator.records.Observer`.
        interrupted: polled; once it is true the run stops with a checkpoint.

    Raises:
        InputError: the data, the folder or the run to resume is wrong; nothing was started.
        JobError: the job failed; its files say how far it came.
        InterruptedJobError: it was interrupted; `resume=True` continues it.
    """
    # Imported here: `import shardsgd` loads neither ray nor jax, and wrong data is reported before they are needed.
    from shardsgd.coordinator.data import load_dataset  # noqa: PLC0415
    from shardsgd.coordinator.outputs import RunFolder  # noqa: PLC0415

    spec = spec.resolved()
    folder = RunFolder(default_out(spec) if out is None else Path(out))
    dataset = load_dataset(spec)
    if interrupted():
        raise InterruptedJobError("interrupted before the first step")

    from shardsgd.coordinator.training import run_training  # noqa: PLC0415

    outcome = run_training(spec, dataset, folder, observer or Silent(), resume=resume, interrupted=interrupted)
    if outcome.error is not None:
        raise outcome.error
    return TrainResult(outcome.summary, outcome.parameters, folder.path)
