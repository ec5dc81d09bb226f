"""Which steps of a run have an event of their own, and what it says."""

from __future__ import annotations

from shardsgd.coordinator.records import Pace, StepRecord, finite
from shardsgd.coordinator.service.jobs import NewEvent

_LEAST_S = 0.02
# Of a step; the rest is in metrics.jsonl.
_METRICS = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "gradient_norm",
    "noise_trace",
    "noise_norm_squared",
    "noise_scale",
    "noise_scale_low",
    "noise_scale_high",
    "gain",
    "step_seconds",
)
_PACE = ("samples_per_second", "fraction_done", "eta_seconds")


class Thinner:
    """Chooses the steps that have an event: few enough to be recorded, and always a run's last.

    Args:
        last: the last step that has one already; none of it or before it gets another.
        least_s: between two, in seconds.
    """

    def __init__(self, last: int, least_s: float = _LEAST_S) -> None:
        self._last = last
        self._least_s = least_s
        self._next_at = float("-inf")
        self._held: tuple[StepRecord, Pace, float] | None = None

    def take(self, record: StepRecord, pace: Pace, now: float) -> NewEvent | None:
        """The event of a step, or None if it is to have none for now.

        Args:
            record: of the step.
            pace: after it.
            now: in Unix seconds.
        """
        if record.step <= self._last:
            return None
        self._held = (record, pace, now)
        # A clock that is set back must not keep events from being made.
        if self._next_at - self._least_s <= now < self._next_at:
            return None
        return self.rest()

    def rest(self) -> NewEvent | None:
        """The event of the newest step, if it has none yet."""
        if self._held is None:
            return None
        (record, pace, at), self._held = self._held, None
        left_out = record.step - self._last - 1
        self._last, self._next_at = record.step, at + self._least_s
        fields = {name: getattr(record, name) for name in _METRICS} | {name: getattr(pace, name) for name in _PACE}
        return NewEvent("metrics", at, finite(fields) | {"steps_left_out": left_out})
