"""How our own step and memory grow with workers and with parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.alternate import Options, alternate
from benchmarks.contender import started
from benchmarks.memory import memory, worker_memory
from benchmarks.progress import say
from benchmarks.results import SweepPoint
from benchmarks.work import FEATURES, HIDDEN, ROWS, job, ours, parameter_count, write_rows

WORKERS, WORKERS_BATCH, WORKERS_SHARDS = (1, 2, 4, 8, 16), 256, 16
# Hidden layers that make about 10⁴ to 10⁸ parameters; few rows, so that data does not hide the memory that parameters take.
HIDDEN_BY_SIZE = ((12,), (128,), (680, 680), (2800, 2800), (9600, 9600))
PARAMETERS_BATCH, PARAMETERS_SHARDS, PARAMETERS_WORKERS, PARAMETERS_ROWS = 16, 2, 2, 2_000
_QUICK_POINTS = 3


def measure(options: Options) -> Mapping[str, list[SweepPoint]]:
    """Points by what changed from one to the next; one after another, since 31 workers would be in each other's way."""
    last = _QUICK_POINTS if options.quick else None
    return {
        "workers": [by_workers(workers, options) for workers in WORKERS[:last]],
        "parameters": [by_parameters(hidden, options) for hidden in HIDDEN_BY_SIZE[:last]],
    }


def by_workers(workers: int, options: Options) -> SweepPoint:
    """The usual network with so many workers, on however few cores."""
    return _point(options, workers, HIDDEN, WORKERS_BATCH, WORKERS_SHARDS, ROWS)


def by_parameters(hidden: tuple[int, ...], options: Options) -> SweepPoint:
    """Two workers with so large a network."""
    return _point(options, PARAMETERS_WORKERS, hidden, PARAMETERS_BATCH, PARAMETERS_SHARDS, PARAMETERS_ROWS)


def _point(options: Options, workers: int, hidden: tuple[int, ...], batch: int, shards: int, rows: int) -> SweepPoint:
    source = write_rows(options.scratch / "rows.npz", rows)
    name = f"workers: {workers}, parameters: {parameter_count(hidden):,}"
    say(f"{name}:")
    contender = ours(name, job(source, batch=batch, shards=shards, workers=workers, hidden=hidden))
    with started([contender], options.scratch) as running:
        seconds = alternate(running, options)[name]
        pid = running[name].pid
        coordinator, workers_memory = memory(pid), worker_memory(pid)
        details = running[name].finish()
        return SweepPoint(
            workers=workers,
            parameters=parameter_count(hidden),
            seconds=seconds,
            # Its peak after the run's end too, when it has written checkpoint and parameters; the workers are gone by then.
            coordinator=replace(coordinator, peak=int(details["peak_bytes"])),
            worker_memory=workers_memory,
            rows_bytes=math.ceil(rows / workers) * (FEATURES + 1) * 4,
            details=details,
        )
