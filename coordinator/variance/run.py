"""One measurement from a validated spec to its files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import ray

from shardsgd.coordinator.control import Control
from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.opening import opened_rounds
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.training import make_problem
from shardsgd.coordinator.variance.files import VarianceFolder
from shardsgd.coordinator.variance.measurement import Measurement, Squared
from shardsgd.coordinator.variance.records import (
    DRAWS,
    Layer,
    Samples,
    Variance,
    VarianceObserver,
    law_of,
    total,
)
from shardsgd.coordinator.variance.setting import (
    Point,
    batch_sizes,
    dealt_anew,
    measured_problem,
    point_of,
    repeats_by_size,
)
from shardsgd.errors import InterruptedJobError, JobError
from shardsgd.formatting import count, plural
from shardsgd.model.problem import Problem
from shardsgd.spec import JobSpec
from shardsgd.workers.faults import FaultPlan
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.pool import first_line


@dataclass(frozen=True)
class VarianceOutcome:
    """How a measurement ended.

    Attributes:
        variance: what was measured.
        error: why not all of it was; None if it was.
    """

    variance: Variance
    error: JobError | InterruptedJobError | None


def run_variance(
    spec: JobSpec,
    dataset: Dataset,
    folder: VarianceFolder,
    observer: VarianceObserver,
    *,
    control: Control,
    at: Path | None = None,
    batches: Sequence[int] | None = None,
    repeats: int | None = None,
    faults: FaultPlan | None = None,
    idle: IdleWorkers | None = None,
) -> VarianceOutcome:
    """Measures E‖g_B − g‖² against B at fixed θ, and writes what it found, also when it is interrupted or fails.

    Args:
        spec: resolved.
        dataset: of that spec.
        folder: where files go.
        observer: follows the measurement.
        control: stops it.
        at: folder of a run, from whose newest checkpoint θ is taken; θ_0 if None.
        batches: batch sizes; powers of two and n if None.
        repeats: R, batches of each size and way to draw, at least 2; 100, and more of small ones, if None.
        faults: that are to happen to workers; for tests.
        idle: workers of the Ray that this process is connected to, to begin with and to be given back.

    Raises:
        InputError: the batch sizes, `repeats`, `at` or the folder is wrong; nothing was started.
        InterruptedJobError: interrupted before tr Σ was known.
        JobError: likewise failed, or the files could not be written.
    """
    sizes = batch_sizes(dataset.rows, batches)
    repeats_of = repeats_by_size(dataset.rows, sizes, repeats)
    problem = make_problem(spec, dataset)
    point = point_of(at, spec, dataset, problem, observer.note)
    problem = measured_problem(problem)
    with folder.claimed(spec):
        try:
            # Before Ray is started: from the first time that it is polled on, a signal does not end it halfway.
            if control.interrupted():
                raise InterruptedJobError("interrupted")
            outcome = _measured(
                spec, dataset, problem, point, repeats, repeats_of, folder, observer, control, faults, idle
            )
            observer.phase("writing the report")
            folder.write(outcome.variance)
            # Imported here: matplotlib takes a third of a second, which nobody should wait for before the first cell.
            from shardsgd.coordinator.variance.report import variance_report  # noqa: PLC0415

            folder.write_report(variance_report(outcome.variance, spec))
        except InterruptedJobError:
            raise InterruptedJobError("interrupted before anything was measured") from None
        except ray.exceptions.RayError as error:
            raise JobError(f"Ray failed: {first_line(error)}") from error
        except OSError as error:
            raise JobError(f"the measurement's files could not be written: {error}") from error
    return outcome


def _measured(
    spec: JobSpec,
    dataset: Dataset,
    problem: Problem,
    point: Point,
    repeats: int | None,
    repeats_of: Mapping[int, int],
    folder: VarianceFolder,
    observer: VarianceObserver,
    control: Control,
    faults: FaultPlan | None,
    idle: IdleWorkers | None,
) -> VarianceOutcome:
    """All cells; or those before an interruption or a failure, if tr Σ is known by then."""
    rows, sampling = dataset.rows, problem.sampling
    to_do = 2 * rows + len(DRAWS) * sum(size * number for size, number in repeats_of.items())
    fewest, most = min(repeats_of.values()), max(repeats_of.values())
    times = count(fewest) if fewest == most else f"{count(fewest)} to {count(most)}"
    observer.note(
        f"{count(rows)} rows; {plural(len(repeats_of), 'batch size')}, each drawn {times} times with and as often without "
        f"replacement: {count(to_do)} gradients of rows"
    )
    with opened_rounds(
        spec,
        problem,
        dealt_anew(dataset, sampling.shards),
        shares=max(sampling.shards, fewest),
        each="batches" if fewest > sampling.shards else "shards",
        phase=observer.phase,
        note=observer.note,
        control=control,
        faults=faults,
        idle=idle,
    ) as (exchange, rounds):
        measurement = Measurement(problem, exchange, rounds, point.theta)
        told = _Told(observer, rounds, to_do)
        told.begin("the gradient of all rows")
        norms = measurement.gradient()
        told(rows)
        told.begin("tr Σ")
        traces = measurement.traces(told)
        cells: list[Samples] = []
        error: JobError | InterruptedJobError | None = None
        state: Literal["SUCCEEDED", "INTERRUPTED", "FAILED"] = "SUCCEEDED"
        planned = [(batch, draw) for batch in sorted(repeats_of) for draw in DRAWS]
        reason = f"all {len(planned)} cells are measured"
        try:
            for batch, draw in planned:
                told.begin(f"batches of {plural(batch, 'row')} {draw.replace('_', ' ')}")
                cells.append(measurement.batches(draw, batch, repeats_of[batch], told))
        except InterruptedJobError:
            state, reason = "INTERRUPTED", f"interrupted after {len(cells)} of {len(planned)} cells"
            error = InterruptedJobError(f"{reason}; what was measured is in {folder.path}")
        except JobError as failure:
            state, reason, error = "FAILED", str(failure), failure
        variance = Variance(
            name=spec.name,
            state=state,
            reason=reason,
            rows=rows,
            repeats=repeats,
            seed=sampling.seed,
            step=point.step,
            law=law_of(
                math.fsum(traces.tolist()),
                math.fsum(norms.tolist()),
                rows,
                [(cell.draw, cell.batch, total(cell.squared)) for cell in cells],
            ),
            layers=_layers(problem, traces, norms, cells),
        )
    return VarianceOutcome(variance, error)


def _layers(problem: Problem, traces: Squared, norms: Squared, cells: Sequence[Samples]) -> tuple[Layer, ...]:
    rows = problem.sampling.rows
    return tuple(
        Layer(
            entry.name,
            entry.size,
            law_of(
                float(traces[i]),
                float(norms[i]),
                rows,
                [(cell.draw, cell.batch, np.ascontiguousarray(cell.squared[:, i])) for cell in cells],
            ),
        )
        for i, entry in enumerate(problem.layout.entries)
    )


class _Told:
    """Tells an observer how far a measurement is, and what happened to the workers meanwhile."""

    def __init__(self, observer: VarianceObserver, rounds: Rounds, to_do: int) -> None:
        self._observer = observer
        self._members = rounds.members
        self._to_do = to_do
        self._done = 0
        self._doing = ""

    def begin(self, doing: str) -> None:
        self._doing = doing
        self(0)

    def __call__(self, rows: int) -> None:
        self._done = min(self._done + rows, self._to_do)
        for incident in self._members.incidents:
            if incident.kind != "recovered":
                reason = f": {incident.reason}" if incident.reason else ""
                self._observer.note(f"worker {incident.worker} {incident.kind}{reason}")
        self._members.incidents.clear()
        self._observer.progress(self._done, self._to_do, self._doing)
