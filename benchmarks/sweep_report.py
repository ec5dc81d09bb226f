"""The sweeps' part of RESULTS.md: tables, fitted lines, memory beside its goals. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from benchmarks.results import Memory, SectionResult, SweepPoint
from benchmarks.tables import detail_table, number, table, with_spread

_ITEMSIZE, _OPTIMIZER_SLOTS = 4, 1  # float32, momentum
_MB = 1e6
_WORKER_ALLOWANCE = 150 * _MB


def text(section: SectionResult) -> str:
    """The whole part."""
    workers, parameters = section.points["workers"], section.points["parameters"]
    return "\n\n".join(
        [
            "## How a step grows",
            "More workers on the same cores (MLP 784-256-128-10, B = 256, V = 16): what a worker costs, not what it saves.",
            _times("workers", workers, lambda point: point.workers),
            line("workers", [point.workers for point in workers], _medians(workers)),
            "More parameters (2 workers, B = 16, V = 2):",
            _times("parameters", parameters, lambda point: point.parameters),
            line("million parameters", [point.parameters / 1e6 for point in parameters], _medians(parameters)),
            f"Peak memory in MB (VmHWM). A process that has imported jax and done nothing: {_mb(section.jax_peak)} MB. The "
            "coordinator's baseline is its own peak with the smallest model.",
            coordinator_table(parameters),
            "The largest worker; Rss… are what its resident memory was made of after the last step (file: programs and "
            "libraries, shmem: rows, parameters and sums, all shared with other processes).",
            worker_table("parameters", parameters, section.jax_peak, lambda point: point.parameters),
            worker_table("workers", workers, section.jax_peak, lambda point: point.workers),
        ]
    )


def line(name: str, sizes: Sequence[float], seconds: Sequence[float]) -> str:
    """The least-squares line through step times, in words."""
    a, b, r_squared = fit(sizes, seconds)
    return f"Fitted: step time = {number(1e3 * a)} ms + {number(1e3 * b)} ms · {name} (least squares, R² = {r_squared:.3f})."


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """(a, b, R²) of the least-squares line y = a + b·x."""
    sizes, values = np.asarray(x, float), np.asarray(y, float)
    b, a = np.polyfit(sizes, values, 1)
    residuals = values - (a + b * sizes)
    return float(a), float(b), float(1 - np.sum(residuals**2) / np.sum((values - values.mean()) ** 2))


def coordinator_goal(point: SweepPoint) -> float:
    """Bytes above the coordinator's own baseline."""
    return point.parameters * _ITEMSIZE * (3 + _OPTIMIZER_SLOTS)


def worker_goal(point: SweepPoint, jax_peak: int) -> float:
    """Bytes of a worker in all: its shards' rows, four times the parameters, and an allowance over an importing jax process."""
    return jax_peak + point.rows_bytes + 4 * _ITEMSIZE * point.parameters + _WORKER_ALLOWANCE


def coordinator_table(points: Sequence[SweepPoint]) -> str:
    """The coordinator's peak beside its goal: a row a number of parameters, above the smallest."""
    smallest, *larger = sorted(points, key=lambda point: point.parameters)
    baseline = smallest.coordinator.peak
    rows = [[f"{smallest.parameters:,}", _mb(baseline), "baseline", "", ""]]
    for point in larger:
        above = point.coordinator.peak - baseline
        goal = coordinator_goal(point)
        rows.append([f"{point.parameters:,}", _mb(point.coordinator.peak), _mb(above), _mb(goal), _kept(above, goal)])
    return table(["parameters", "coordinator's peak", "above the baseline", "goal", "kept"], rows)


def worker_table(name: str, points: Sequence[SweepPoint], jax_peak: int, size: Callable[[SweepPoint], int]) -> str:
    """The largest worker's peak beside its goal: a row a point."""
    rows = []
    for point in points:
        worker = max(point.worker_memory, key=lambda memory: memory.peak, default=Memory(0, 0, 0, 0))
        goal = worker_goal(point, jax_peak)
        parts = (worker.anonymous, worker.file, worker.shared)
        rows.append(
            [f"{size(point):,}", _mb(worker.peak), _mb(goal), _kept(worker.peak, goal), *(_mb(part) for part in parts)]
        )
    return table([name, "worker's peak", "goal", "kept", "RssAnon", "RssFile", "RssShmem"], rows)


def _times(name: str, points: Sequence[SweepPoint], size: Callable[[SweepPoint], int]) -> str:
    measured = table(
        [name, "ms a step, median (least–most)"],
        ([f"{size(point):,}", with_spread([1e3 * value for value in point.seconds])] for point in points),
    )
    return (
        measured
        + "\n\n"
        + detail_table(f"{name}; ms, median over steps", [(f"{size(point):,}", point.details) for point in points])
    )


def _medians(points: Sequence[SweepPoint]) -> list[float]:
    return [median(point.seconds) for point in points]


def _kept(value: float, goal: float) -> str:
    return "yes" if value <= goal else "no"


def _mb(value: float) -> str:
    return f"{value / _MB:,.0f}"
