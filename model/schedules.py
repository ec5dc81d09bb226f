"""Learning-rate schedules: lr(t) / lr(0) as plain functions of the step t = 0, 1, …, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """1."""
    return lambda _: 1.0


def polynomial(power: float) -> Schedule:
    """(t + 1)^−power."""
    return lambda t: float((t + 1) ** -power)


def step(factor: float, every: int) -> Schedule:
    """factor^⌊t / every⌋."""
    return lambda t: float(factor ** (t // every))


def exponential(rate: float) -> Schedule:
    """exp(−rate · t)."""
    return lambda t: math.exp(-rate * t)
