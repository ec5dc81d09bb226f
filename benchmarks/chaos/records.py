"""The file that keeps what was measured, so that a part can be run again by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.coordinator import CoordinatorRun, Kill
from benchmarks.chaos.delays import Delays
from benchmarks.chaos.faults import FaultsRun
from benchmarks.chaos.kills import KillsRun
from benchmarks.chaos.walk import WalkRun
from benchmarks.results import Comparison


@dataclass(frozen=True)
class PartResult:
    """One part of one run of the harness.

    Attributes:
        setting: machine, versions, date and parameters, by name.
        runs: what was measured, of the part's own class.
    """

    setting: Mapping[str, str]
    runs: list[Any]


def save(path: Path, parts: Mapping[str, PartResult]) -> None:
    """Writes the raw numbers."""
    path.write_text(json.dumps({name: asdict(part) for name, part in parts.items()}, indent=1) + "\n")


def load(path: Path) -> dict[str, PartResult]:
    """Reads them; empty if there are none yet."""
    if not path.is_file():
        return {}
    return {
        name: PartResult(fields["setting"], [_READERS[name](run) for run in fields["runs"]])
        for name, fields in json.loads(path.read_text()).items()
    }


def _faults(fields: dict[str, Any]) -> FaultsRun:
    delays = {
        what: {kind: Delays(*numbers) for kind, numbers in by_kind.items()}
        for what, by_kind in fields["delays"].items()
    }
    return FaultsRun(**fields | {"delays": delays})


def _coordinator(fields: dict[str, Any]) -> CoordinatorRun:
    return CoordinatorRun(**fields | {"kills": [Kill(**kill) for kill in fields["kills"]]})


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "faults": _faults,
    "kills": lambda fields: KillsRun(**fields),
    "coordinator": _coordinator,
    "walk": lambda fields: WalkRun(**fields),
    "price": lambda fields: Comparison(**fields),
}
