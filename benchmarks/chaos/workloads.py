"""The work that is disturbed: the example, and MLPs on random rows."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.work import ROWS, job, parameter_count, write_rows

_DIGITS = Path(__file__).parents[2] / "examples" / "digits.toml"
# About 2.5 million parameters: 38 blocks of 64 Ki, which the workers update.
_LARGE_HIDDEN, _LARGE_ROWS, _LARGE_BATCH = (1280, 1152), 2_000, 64
_BATCH = 1024
_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Workload:
    """A job and what is known of it.

    Attributes:
        name: in tables.
        spec: keywords of `JobSpec`, without a stop rule.
        steps_per_epoch: after so many it is evaluated.
        updates: whether the workers update, in a second round of every step.
    """

    name: str
    spec: Mapping[str, Any]
    steps_per_epoch: int
    updates: bool = False

    def job(self, **tables: Mapping[str, Any]) -> dict[str, Any]:
        """The spec with tables changed, such as `stop={"steps": 10}`, which replaces every stop rule."""
        without = {**self.spec, "stop": {}}
        return without | {name: {**without.get(name, {}), **values} for name, values in tables.items()}


def digits() -> Workload:
    """The example's job."""
    spec = tomllib.loads(_DIGITS.read_text())
    # 1,797 digits, a fifth of them held out.
    return Workload("digits, B = 256, V = 8", spec, steps_per_epoch=6)


def large(scratch: Path) -> Workload:
    """An MLP of 2.5 million parameters with a small batch."""
    source = write_rows(scratch / "rows-large.npz", _LARGE_ROWS)
    spec = _learning(job(source, batch=_LARGE_BATCH, shards=8, hidden=_LARGE_HIDDEN), validation=0.2)
    name = f"MLP of {parameter_count(_LARGE_HIDDEN) / 1e6:.1f} M parameters, B = {_LARGE_BATCH}, V = 8"
    return Workload(name, spec, steps_per_epoch=25, updates=True)


def usual(scratch: Path) -> Workload:
    """MLP 784-256-128-10 with a large batch."""
    source = write_rows(scratch / "rows.npz")
    spec = _learning(job(source, batch=_BATCH, shards=8), validation=0.0)
    return Workload(f"MLP 784-256-128-10, B = {_BATCH}, V = 8", spec, steps_per_epoch=-(-ROWS // _BATCH))


def _learning(spec: dict[str, Any], validation: float) -> dict[str, Any]:
    """Fast enough for a lost update to show in the bits, with the default time between checkpoints."""
    spec["data"]["validation"] = validation
    spec["optimizer"]["learning_rate"] = 1e-2
    return {**spec, "checkpoint": {"every_seconds": _EVERY_SECONDS}}
