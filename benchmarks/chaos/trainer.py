"""A training process: `python -m benchmarks.chaos.trainer FOLDER` does what the order in the folder says."""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TextIO
from unittest import mock

from benchmarks.chaos.orders import Files, Order
from benchmarks.chaos.steplog import StepLog
from shardsgd.coordinator import opening
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.records import Pace, StepRecord, as_json
from shardsgd.coordinator.training import run_training
from shardsgd.spec import JobSpec
from shardsgd.workers.faults import FaultPlan, fired

_LINGER_S = 0.1


class TimedMembers(Members):
    """Members whose book also says when: metrics.jsonl says in which step."""

    now: TimedMembers | None = None

    def __init__(self, file: TextIO, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file = file
        TimedMembers.now = self

    def note(self, *args: Any, **options: Any) -> None:
        """Enters an incident."""
        super().note(*args, **options)
        line = vars(self.incidents[-1]) | {"at": time.monotonic(), "time": time.time()}
        self._file.write(json.dumps(line) + "\n")


class Lingering(StepLog):
    """Once no fault is left to be declared, gives replacements the time to start that those still to come may be for."""

    def __init__(self, path: Path, plan: FaultPlan, linger_from: int) -> None:
        super().__init__(path)
        self._plan = plan
        self._from = linger_from
        self._never = threading.Event()

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Waits, but not for a condition: it is steps that bring the next worker in."""
        super().step(record, pace)
        if record.step >= self._from and len(fired(self._plan)) < len(self._plan.faults):
            self._never.wait(_LINGER_S)


class Walk(StepLog):
    """Has the run go on with one number of workers after the other.

    Attributes:
        stages: of each number: steps done with exactly so many workers, the step they began at, their median time.
    """

    def __init__(self, path: Path, control: Control, sizes: list[int], steps: int) -> None:
        super().__init__(path)
        self.stages: list[dict[str, float]] = []
        self._control = control
        self._sizes = sizes
        self._steps = steps
        self._seconds: list[float] = []
        self._asked_at = time.monotonic()
        self._waited = 0.0

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Goes on to the next number after enough steps with this one."""
        super().step(record, pace)
        assert TimedMembers.now is not None, "there are members before there are steps"
        if not self._sizes or len(TimedMembers.now.able) != self._sizes[0]:
            return
        if not self._seconds:
            self._waited = time.monotonic() - self._asked_at
        self._seconds.append(record.step_seconds)
        # The first step after a change may have begun before it.
        if len(self._seconds) <= self._steps:
            return
        self.stages.append(
            {
                "workers": self._sizes.pop(0),
                "from_step": record.step + 2 - len(self._seconds),
                "steps": len(self._seconds) - 1,
                "step_seconds": median(self._seconds[1:]),
                "waited_seconds": self._waited,
            }
        )
        self._seconds.clear()
        self._asked_at = time.monotonic()
        if self._sizes:
            self._control.scale(self._sizes[0])
        else:
            self._control.stop()


def main() -> None:
    """Trains."""
    faulthandler.register(signal.SIGUSR1)
    files = Files(Path(sys.argv[1]))
    order = Order.read(files)
    spec, control, plan = JobSpec(**order.spec).resolved(), Control(), files.plan(order.faults)
    observer: StepLog
    if order.walk:
        observer = Walk(files.steps, control, list(order.walk), order.walk_steps)
    elif order.faults:
        observer = Lingering(files.steps, plan, order.linger_from)
    else:
        observer = StepLog(files.steps)
    with (
        files.incidents.open("w", buffering=1) as book,
        # The one way to learn the times.
        mock.patch.object(opening, "Members", partial(TimedMembers, book)),
    ):
        outcome = run_training(
            spec,
            load_dataset(spec),
            RunFolder(files.run),
            observer,
            control=control,
            faults=plan if order.faults else None,
        )
    stages = observer.stages if isinstance(observer, Walk) else []
    files.result.write_text(json.dumps({"summary": as_json(outcome.summary), "stages": stages}))


if __name__ == "__main__":
    main()
