"""Where the time went: the parts of a median step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardsgd.coordinator.charts import Part, Stack
from shardsgd.coordinator.curves import series
from shardsgd.coordinator.records import StepRecord
from shardsgd.formatting import count, duration, plural

# In the order of a step, by their names in a record.
_PARTS = ("gather", "leaf", "reduce", "exchange", "update")
_LEAF = _PARTS.index("leaf")
_LABELS = ("gather", "leaf (gradients)", "reduce", "exchange", "update")


@dataclass(frozen=True)
class PartTime:
    """The time of one part of a step.

    Attributes:
        label: what it is called.
        seconds: its median.
        share: of a step, between 0 and 1.
    """

    label: str
    seconds: float
    share: float


@dataclass(frozen=True)
class StepTimes:
    """Where the time of a step went: medians over the steps of which it is known.

    Attributes:
        steps: of how many it is known.
        seconds: of a step.
        parts: gather, leaf, reduce, exchange and update, which make up a step. Medians of shares are scaled to add up to 1.
        idle: what a worker waited, on average, while others did one of the parts.
    """

    steps: int
    seconds: float
    parts: tuple[PartTime, ...]
    idle: PartTime

    @property
    def leaf(self) -> PartTime:
        """The part that computes gradients."""
        return self.parts[_LEAF]


def step_times(steps: Sequence[StepRecord]) -> StepTimes | None:
    """Where the time of these steps went; None where it was not measured."""
    fields = (*_PARTS, "idle", "step")
    seconds = np.stack([series([getattr(record, f"{field}_seconds") for record in steps]) for field in fields])
    known = np.isfinite(seconds).all(axis=0) & (seconds[-1] > 0)
    if not known.any():
        return None
    # Differences of two clocks' times may fall below 0.
    *named, idle, whole = np.maximum(seconds[:, known], 0.0)
    parts = np.array(named)
    shares = np.median(parts / whole, axis=1)
    shares /= shares.sum() or 1.0
    return StepTimes(
        steps=len(whole),
        seconds=float(np.median(whole)),
        parts=tuple(map(PartTime, _LABELS, np.median(parts, axis=1).tolist(), shares.tolist())),
        idle=PartTime("idle, per worker", float(np.median(idle)), float(np.median(idle / whole))),
    )


def time_chart(times: StepTimes, all_steps: int) -> Stack:
    """The parts of a step as a picture.

    Args:
        times: where the time went.
        all_steps: how many steps the run has, also those of which that is not known.
    """
    measured = "" if times.steps == all_steps else f" whose parts were measured, of {count(all_steps)}"
    return Stack(
        key="time",
        title="Parts of a step",
        caption=f"The median of {plural(times.steps, 'step')}{measured}: each part begins where the one above it ends.",
        x_label="share of a step",
        y_label=f"a step: {duration(times.seconds)}",
        parts=tuple(
            Part(part.label, part.share, whole_percent(part.share), stressed=part is times.leaf) for part in times.parts
        ),
    )


def time_in_words(times: StepTimes) -> str:
    """How much of a step is gradients, and what takes longest where that is something else."""
    leaf, waited = whole_percent(times.leaf.share), whole_percent(times.idle.share)
    waiting = f"a worker waited {waited} of it, on average"
    most = max(times.parts, key=lambda part: part.share)
    if times.leaf.share >= most.share:
        return f"{leaf} of a step is gradient computation; {waiting}."
    other = f"{most.label}, {whole_percent(most.share)}"
    return f"The largest part of a step is {other}; {leaf} is gradient computation; {waiting}."


def whole_percent(share: float) -> str:
    """A share of 1 in whole percent, which is as well as times are known; neither 0% nor 100% unless it is.

    Example:
        >>> whole_percent(0.8349), whole_percent(0.002), whole_percent(0.999), whole_percent(1.0)
        ('83%', '<1%', '>99%', '100%')
    """
    percent = 100 * share
    if 0 < percent < 1:
        return "<1%"
    return ">99%" if 99 < percent < 100 else f"{percent:.0f}%"
