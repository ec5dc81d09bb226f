"""Learning-rate schedules, lr(t) / lr(0) as plain functions of the step t = 0, 1, …, and the gain of a larger batch."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]

# In the place of a variance that is estimated as 0: far below any, and far from where its quotient by rows would lose digits.
_LEAST_VARIANCE = 1e-200


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


def gain(trace: float, norm_squared: float, rows: int, tuned_for: int) -> float:
    """How many steps of `tuned_for` rows a step of `rows` rows is worth, by its variance: AdaScale's gain.

    r = (tr Σ/B₀ + |G|²) / (tr Σ/B + |G|²), 1 ≤ r ≤ B/B₀. Where the gradient is all noise r is B/B₀, and where it is all
    signal 1 (Johnson et al. 2020, arXiv 2007.05105, equation 4). Exactly 1 for B ≤ B₀.

    Args:
        trace: tr Σ, estimated.
        norm_squared: |G|², estimated; below 0 it counts as 0.
        rows: B, of the step.
        tuned_for: B₀, of the steps for which the learning rate was chosen.
    """
    trace, norm_squared = max(_LEAST_VARIANCE, trace), max(0.0, norm_squared)
    ratio = (trace / tuned_for + norm_squared) / (trace / rows + norm_squared)
    # In this order a ratio of infinities, which is no number, gives 1.
    return min(max(1.0, ratio), max(1.0, rows / tuned_for))
