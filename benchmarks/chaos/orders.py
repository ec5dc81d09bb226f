"""What a training process is told, and the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shardsgd.workers.faults import Fault, FaultPlan


@dataclass(frozen=True)
class Order:
    """One run.

    Attributes:
        spec: keywords of `JobSpec`.
        faults: that are to happen.
        walk: numbers of workers to have one after the other; the run ends after the last.
        walk_steps: to be done with each number.
        linger_from: from this step on the run waits between steps while faults are still to come.
    """

    spec: Mapping[str, Any]
    faults: Sequence[Fault] = ()
    walk: Sequence[int] = ()
    walk_steps: int = 0
    linger_from: int = 2**31

    def write(self, files: Files) -> None:
        """Writes what `read` reads."""
        files.order.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, files: Files) -> Order:
        """The order of a training process."""
        fields = json.loads(files.order.read_text())
        return cls(**fields | {"faults": tuple(Fault(**fault) for fault in fields["faults"])})


@dataclass(frozen=True)
class Files:
    """Where things are in a training process's folder."""

    folder: Path

    @property
    def order(self) -> Path:
        """The `Order`."""
        return self.folder / "order.json"

    @property
    def run(self) -> Path:
        """The run's own folder."""
        return self.folder / "run"

    @property
    def metrics(self) -> Path:
        """The run's metrics."""
        return self.run / "metrics.jsonl"

    @property
    def steps(self) -> Path:
        """See `steplog`."""
        return self.folder / "steps"

    @property
    def incidents(self) -> Path:
        """A line an incident, with `at` (monotonic) and `time` (of day)."""
        return self.folder / "incidents.jsonl"

    @property
    def result(self) -> Path:
        """The summary."""
        return self.folder / "result.json"

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.folder / "log"

    def plan(self, faults: Sequence[Fault]) -> FaultPlan:
        """Faults with a ledger in this folder."""
        ledger = self.folder / "ledger"
        ledger.mkdir(exist_ok=True)
        return FaultPlan(tuple(faults), ledger)
