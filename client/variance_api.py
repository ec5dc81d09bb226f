"""Measuring the variance of the gradient from Python: the function behind `shardsgd variance`.

The module is not called `variance`, which is the function's name in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shardsgd.coordinator.control import Control
from shardsgd.spec import JobSpec

if TYPE_CHECKING:
    from shardsgd.coordinator.variance.records import Variance, VarianceObserver


@dataclass(frozen=True)
class VarianceResult:
    """A finished measurement.

    Attributes:
        variance: what was measured, as in variance.json.
        out: the folder with its files.
    """

    variance: Variance
    out: Path


def default_variance_out(spec: JobSpec) -> Path:
    """Where a measurement's files go unless told otherwise."""
    return Path("runs") / f"{spec.name}-variance"


def variance(
    spec: JobSpec,
    *,
    at: str | Path | None = None,
    batches: Sequence[int] | None = None,
    repeats: int | None = None,
    out: str | Path | None = None,
    observer: VarianceObserver | None = None,
    control: Control | None = None,
) -> VarianceResult:
    """Measures E‖g_B − g‖² against the batch size B at fixed θ, data-parallel over the workers, and writes the files.

    g is the gradient of the mean loss of all n training rows, g_B that of B rows drawn at random. What it should be is known:
    tr Σ/B with replacement, times (n − B)/(n − 1) without, with tr Σ computed from the gradient of every row. Uses the Ray this
    process is connected to, if it is; otherwise starts one and stops it afterwards.

    Args:
        spec: of the job. Its batch, optimizer, schedule, regularizer and stop rules do not matter here.
        at: folder of a finished or running run of the same job: θ is that of its newest checkpoint. None: θ_0.
        batches: batch sizes, each from 1 to n. None: powers of two, and n.
        repeats: R, how many batches of each size are drawn with and as many without replacement; at least 2. None: 100, and up
            to 1,600 of small ones.
        out: folder for the files; `runs/NAME-variance` if None.
        observer: called as it goes; see `shardsgd.coordinator.variance.records.VarianceObserver`.
        control: stops it, from another thread.

    Raises:
        InputError: the data, the batch sizes, `repeats`, `at` or `out` is wrong; nothing was started.
        JobError: the measurement failed; its files hold what was measured before.
        InterruptedJobError: it was interrupted; likewise.
    """
    # Imported here: `import shardsgd` loads neither ray nor jax, and wrong data is reported before they are needed.
    from shardsgd.coordinator.data import load_dataset  # noqa: PLC0415

    spec = spec.resolved()
    dataset = load_dataset(spec)

    from shardsgd.coordinator.variance.files import VarianceFolder  # noqa: PLC0415
    from shardsgd.coordinator.variance.records import Unobserved  # noqa: PLC0415
    from shardsgd.coordinator.variance.run import run_variance  # noqa: PLC0415

    folder = VarianceFolder(default_variance_out(spec) if out is None else Path(out))
    outcome = run_variance(
        spec,
        dataset,
        folder,
        observer or Unobserved(),
        control=control or Control(),
        at=None if at is None else Path(at),
        batches=batches,
        repeats=repeats,
    )
    if outcome.error is not None:
        raise outcome.error
    return VarianceResult(outcome.variance, folder.path)
