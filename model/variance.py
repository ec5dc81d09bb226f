"""The law of the variance of an averaged gradient: prediction, measurement with its interval, and the slope.

Sources: MATH.md "Stochastic gradients"; Cochran 1977, "Sampling Techniques", chapter 2, for the factor of a
finite population.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.intervals import t_quantile

Draw = Literal["with_replacement", "without_replacement"]

# 97.5% quantiles of Student's t where `t_quantile` knows none, by degrees of freedom.
_T = {1: 12.706204736432095, 2: 4.302652729911275}


@dataclass(frozen=True)
class Measured:
    """A number with its 95% interval.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
        error: standard error of the value.
    """

    value: float
    low: float
    high: float
    error: float


def finite_population(rows: int, batch: int) -> float:
    """(n − B)/(n − 1): what drawing B of n rows without replacement leaves of the variance; 0 at B = n."""
    return (rows - batch) / (rows - 1) if rows > 1 else 0.0


def predicted_variance(trace: float, rows: int, batch: int, draw: Draw) -> float:
    """E‖g_B − g‖²: tr Σ/B with replacement, times (n − B)/(n − 1) without.

    Args:
        trace: tr Σ with divisor n.
        rows: n.
        batch: B.
        draw: how the batch is drawn.
    """
    return trace / batch * (1.0 if draw == "with_replacement" else finite_population(rows, batch))


def measured_mean(samples: NDArray[np.float64]) -> Measured:
    """The mean of independent numbers that are not negative, with Student's interval.

    Args:
        samples: [R] float64, R at least 2.
    """
    count, values = len(samples), samples.tolist()
    mean = math.fsum(values) / count
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    reach = (_T.get(count - 1) or t_quantile(count - 1) or math.nan) * error
    return Measured(mean, max(0.0, mean - reach), mean + reach, error)


def fitted_slope(batches: Sequence[int], variances: Sequence[Measured]) -> Measured | None:
    """The exponent k of variance ∝ B^k: least squares of ln(variance) on ln B, each point weighted by how well it is known.

    The logarithm of a mean with relative standard error ε has standard error ε and, to second order, a mean that is ε²/2 too
    small; both are taken into account. The interval is as many standard errors wide as the widest of the points'.

    Args:
        batches: B of each point.
        variances: measured, and independent of each other.

    Returns:
        None with fewer than two batch sizes of which the variance and its standard error are above 0.
    """
    points = [
        (batch, variance.value, variance.error, (variance.high - variance.value) / variance.error)
        for batch, variance in zip(batches, variances, strict=True)
        if 0 < variance.value < math.inf and 0 < variance.error < math.inf
    ]
    if len({batch for batch, *_ in points}) < 2:
        return None
    sizes, values, errors, quantiles = np.array(points, dtype=np.float64).T
    relative = errors / values
    weights = relative**-2
    distances = np.log(sizes) - np.average(np.log(sizes), weights=weights)
    spread = float(np.sum(weights * distances**2))
    slope = float(np.sum(weights * distances * (np.log(values) + relative**2 / 2))) / spread
    error = 1 / math.sqrt(spread)
    reach = float(quantiles.max()) * error
    return Measured(slope, slope - reach, slope + reach, error)
