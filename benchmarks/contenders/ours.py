"""shardsgd as users call it: `shardsgd.train` with an observer, which makes the run wait for orders between two steps.

What is timed is everything between two calls of the observer: the step, its statistics, its line in the metrics file.
Parameters: `spec`, keywords of JobSpec, and `steps`, how many make a repetition.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import shardsgd
from benchmarks.memory import memory
from benchmarks.orders import Orders
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.records import Pace, Silent, StepRecord

_WARM_UP_STEPS = 10


class Ordered(Silent):
    """Waits for orders after the first step, and again whenever one is done.

    Args:
        orders: of the harness.
        steps: in one repetition.

    Attributes:
        ended: whether the run is to end.
    """

    def __init__(self, orders: Orders, steps: int) -> None:
        self.ended = False
        self._orders = orders
        self._steps = steps
        self._left = 1
        self._started: float | None = None

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Counts; answers and waits once enough steps are done."""
        del record, pace
        self._left -= 1
        if self._left or self.ended:
            return
        if self._started is not None:
            self._orders.answer(time.perf_counter() - self._started)
        repetitions = self._orders.next()
        self.ended = repetitions is None
        self._left = self._steps * (repetitions or 0)
        self._started = time.perf_counter()


def medians(metrics: Path) -> dict[str, float]:
    """Of every time that the lines of steps hold, over the steps; the first few, which warm up, are left out."""
    with metrics.open() as file:
        lines = [line for line in map(json.loads, file) if "validation" not in line]
    values: dict[str, list[float]] = {}
    for line in lines[min(_WARM_UP_STEPS, len(lines) // 2) :]:
        for name, value in line.items():
            if name.endswith("_seconds") and value is not None:
                values.setdefault(name, []).append(value)
    return {name: median(numbers) for name, numbers in values.items()}


def main() -> None:
    """Trains until the harness says that it is time to end."""
    orders = Orders.from_arguments()
    spec = shardsgd.JobSpec(**orders.parameters["spec"])
    observer = Ordered(orders, orders.parameters["steps"])
    out = orders.folder / "run"
    with suppress(shardsgd.InterruptedJobError):
        shardsgd.train(spec, out=out, observer=observer, control=Control(lambda: observer.ended))
    orders.finish(medians(out / "metrics.jsonl") | {"peak_bytes": memory(os.getpid()).peak})


if __name__ == "__main__":
    main()
