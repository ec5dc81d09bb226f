"""Training from Python: the function behind `shardsgd train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardsgd.coordinator.control import Control
from shardsgd.coordinator.records import Silent
from shardsgd.errors import InputError, InterruptedJobError
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
    take_over: bool = False,
    observer: Observer | None = None,
    control: Control | None = None,
) -> TrainResult:
    """Trains in local multi-process mode and writes the run's files.

    Uses the Ray this process is connected to, if it is; otherwise starts one for the run and stops it afterwards.

    Args:
        spec: what to train.
        out: folder for the run's files; `runs/NAME` if None.
        resume: continue the interrupted run in `out`; it ends in the same bits as if it had not been interrupted.
        take_over: with `resume`, take the run from a session that still holds its folder, because it hangs or was stopped;
            should that one wake up, it ends with TakenOverError and writes nothing more.
        observer: called as the run goes; see `shardsgd.coordinator.records.Observer`.
        control: stops the run with a checkpoint, or changes how many workers it has, from another thread.

    Raises:
        InputError: the data, the folder or the run to resume is wrong; nothing was started.
        JobError: the job failed; its files say how far it came.
        TakenOverError: another session has taken the run over.
        InterruptedJobError: it was interrupted; `resume=True` continues it.
    """
    # Imported here: `import shardsgd` loads neither ray nor jax, and wrong data is reported before they are needed.
    from shardsgd.coordinator.data import load_dataset  # noqa: PLC0415
    from shardsgd.coordinator.outputs import RunFolder  # noqa: PLC0415

    if take_over and not resume:
        raise InputError("--take-over (take_over) continues a run: it needs --resume DIR (resume)")
    spec, control = spec.resolved(), control or Control()
    folder = RunFolder(default_out(spec) if out is None else Path(out))
    dataset = load_dataset(spec)
    if control.interrupted():
        raise InterruptedJobError("interrupted before the first step")

    from shardsgd.coordinator.training import run_training  # noqa: PLC0415

    outcome = run_training(
        spec, dataset, folder, observer or Silent(), resume=resume, take_over=take_over, control=control
    )
    if outcome.error is not None:
        raise outcome.error
    return TrainResult(outcome.summary, outcome.parameters, folder.path)
