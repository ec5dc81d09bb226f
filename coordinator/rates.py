"""The spec's learning rate: as a function of the step, and scaled by what a larger batch gains."""

from __future__ import annotations

from dataclasses import dataclass

from shardsgd.model import schedules
from shardsgd.model.statistics import NoiseHistory
from shardsgd.spec import JobSpec, Schedule


@dataclass(frozen=True)
class LearningRates:
    """lr(t), and the gain by which it is scaled where `schedule.scale_invariant` is set.

    Attributes:
        first: lr(0).
        schedule: lr(t) / lr(0).
        tuned_for: rows of the batch that these were chosen for; None: rates are not scaled.
    """

    first: float
    schedule: schedules.Schedule
    tuned_for: int | None

    def __call__(self, step: int) -> float:
        """lr(t)."""
        return self.first * self.schedule(step)

    def gain(self, noise: NoiseHistory, rows: int) -> float | None:
        """How many steps of the schedule the next step is worth; None where rates are not scaled.

        Args:
            noise: of the steps so far. Before the first estimate the gain is 1.
            rows: of the next step.
        """
        if self.tuned_for is None:
            return None
        trace, norm_squared = noise.smoothed_trace, noise.smoothed_norm_squared
        if trace is None or norm_squared is None:
            return 1.0
        return schedules.gain(trace, norm_squared, rows, self.tuned_for)


def learning_rates(spec: JobSpec) -> LearningRates:
    """A validated spec's."""
    tuned_for = spec.schedule.tuned_for if spec.schedule.scale_invariant else None
    return LearningRates(spec.optimizer.learning_rate, _schedule(spec.schedule), tuned_for)


def _schedule(spec: Schedule) -> schedules.Schedule:
    """The schedule of a validated spec, in which the parameters of its kind are set."""
    match spec:
        case Schedule(kind="constant"):
            return schedules.constant()
        case Schedule(kind="polynomial", power=float(power)):
            return schedules.polynomial(power)
        case Schedule(kind="step", factor=float(factor), every=int(every)):
            return schedules.step(factor, every)
        case Schedule(kind="exponential", rate=float(rate)):
            return schedules.exponential(rate)
    raise AssertionError(f"a schedule that validation let through: {spec}")
