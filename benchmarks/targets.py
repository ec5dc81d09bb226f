"""What was to be reached: at least this ratio, in the median."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.sections import cold, exchange, scikit, step


@dataclass(frozen=True)
class Target:
    """One of them.

    Attributes:
        work: of the comparison.
        peer: whose time is divided
        ours: by ours.
        at_least: what it is to be.
    """

    work: str
    peer: str
    ours: str
    at_least: float


_OURS = {step.OURS_2, step.OURS_8, scikit.OURS_2, scikit.OURS_8, cold.OURS, exchange.OURS}

_BY_BATCH = (
    (step.DDP, step.OURS_2, (3.5, 2.2, 1.7)),
    (step.DDP, step.OURS_8, (1.5, 1.5, 1.5)),
    (step.RAY_TRAIN, step.OURS_2, (3.5, 2.5, 2.0)),
)
TARGETS = (
    *(
        Target(step.work_name(batch), peer, ours, at_least)
        for peer, ours, targets in _BY_BATCH
        for batch, at_least in zip(step.BATCHES, targets, strict=True)
    ),
    Target(step.work_name(1024), step.JIT, step.OURS_2, 0.85),
    Target("10 MB", exchange.GLOO, exchange.OURS, 5.0),
    Target("100 MB", exchange.GLOO, exchange.OURS, 5.0),
    Target(cold.WORK, cold.RAY_TRAIN, cold.OURS, 1.5),
)

# The slowest worker's pure leaf time over the time of the step.
LEAF_SHARE = {(step.work_name(1024), step.OURS_2): 0.90}


def target(work: str, peer: str, ours: str) -> float | None:
    """The ratio that was to be reached; None if none was set."""
    return next((t.at_least for t in TARGETS if (t.work, t.peer, t.ours) == (work, peer, ours)), None)


def is_ours(contender: str) -> bool:
    """Whether a contender of any section is shardsgd."""
    return contender in _OURS
