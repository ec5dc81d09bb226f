"""Plain records of what was measured, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """Contenders that did the same work in turn.

    Attributes:
        work: what it was.
        seconds: a repetition took, by contender; number k of every contender is from round k.
        details: what else a contender measured, by contender and name.
        rows: of data in one repetition; 0 where that is of no interest.
    """

    work: str
    seconds: Mapping[str, list[float]]
    details: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rows: int = 0

    def ratios(self, peer: str, ours: str) -> list[float]:
        """A peer's time over ours, in each round."""
        return [theirs / own for theirs, own in zip(self.seconds[peer], self.seconds[ours], strict=True)]


@dataclass(frozen=True)
class Memory:
    """Of one process, in bytes, as Linux counts it.

    Attributes:
        peak: VmHWM, the most that was resident at a time; shared pages included.
        anonymous: RssAnon, its own.
        file: RssFile, mapped from files: programs and libraries.
        shared: RssShmem, mapped from shared memory: rows, parameters and sums.
    """

    peak: int
    anonymous: int
    file: int
    shared: int


@dataclass(frozen=True)
class SweepPoint:
    """Our own step at one size.

    Attributes:
        workers: that computed.
        parameters: of the model.
        seconds: a step took, in each round.
        details: medians over the steps, by the name of the field in metrics.jsonl.
        coordinator: memory of the process that called `shardsgd.train`.
        worker_memory: of each worker's process.
        rows_bytes: of the training rows of one worker's shards.
    """

    workers: int
    parameters: int
    seconds: list[float]
    details: Mapping[str, float]
    coordinator: Memory
    worker_memory: list[Memory]
    rows_bytes: int


@dataclass(frozen=True)
class SectionResult:
    """One section of one run of the harness.

    Attributes:
        setting: the machine, versions, date and rounds, by name.
        comparisons: what was compared.
        points: what was swept, by what changed.
        jax_peak: VmHWM of a process that has imported jax and done nothing, in bytes; 0 where it was not measured.
    """

    setting: Mapping[str, str]
    comparisons: list[Comparison] = field(default_factory=list)
    points: Mapping[str, list[SweepPoint]] = field(default_factory=dict)
    jax_peak: int = 0


def spread(values: list[float]) -> tuple[float, float, float]:
    """(median, least, most)."""
    return median(values), min(values), max(values)


def save(path: Path, sections: Mapping[str, SectionResult]) -> None:
    """Writes the raw numbers."""
    path.write_text(json.dumps({name: asdict(section) for name, section in sections.items()}, indent=1) + "\n")


def load(path: Path) -> dict[str, SectionResult]:
    """Reads them; empty if there are none yet."""
    if not path.is_file():
        return {}
    return {name: _section(fields) for name, fields in json.loads(path.read_text()).items()}


def _section(fields: dict[str, Any]) -> SectionResult:
    points = {name: [_point(point) for point in points] for name, points in fields["points"].items()}
    comparisons = [Comparison(**comparison) for comparison in fields["comparisons"]]
    return SectionResult(fields["setting"], comparisons, points, fields["jax_peak"])


def _point(fields: dict[str, Any]) -> SweepPoint:
    workers = [Memory(**memory) for memory in fields["worker_memory"]]
    return SweepPoint(**{**fields, "coordinator": Memory(**fields["coordinator"]), "worker_memory": workers})
