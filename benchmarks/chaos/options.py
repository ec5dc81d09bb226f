"""How the parts measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        quick: a small version that ends in about a minute.
        faults: in each run of "faults".
        kills: of the coordinator.
        rounds: of whatever alternates; None: as many as the part thinks right.
        seed: of every random choice.
        against: another checkout, to compare the price with; None: there is none.
        scratch: folder for everything that is gone in the end.
    """

    quick: bool
    faults: int
    kills: int
    rounds: int | None
    seed: int
    against: Path | None
    scratch: Path
