"""The spec's learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Callable

from shardsgd.model import schedules
from shardsgd.spec import JobSpec, Schedule


def learning_rates(spec: JobSpec) -> Callable[[int], float]:
    """lr(t)."""
    schedule = _schedule(spec.schedule)
    return lambda step: spec.optimizer.learning_rate * schedule(step)


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
