"""95% intervals of smoothed means, and of the ratio of two of them."""

from __future__ import annotations

import math
from typing import NamedTuple

# Below so many degrees of freedom a variance is hardly known, and the expansion of Student's t is off by more than 1%.
_LEAST_FREEDOM = 3.0
_Z = 1.959963984540054  # of the normal distribution, 97.5%
# Abramowitz and Stegun 26.7.5: t = z + g₁/ν + g₂/ν² + g₃/ν³ + …
_G1 = (_Z**3 + _Z) / 4
_G2 = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
_G3 = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384


class Estimate(NamedTuple):
    """A mean of independent values with normal error.

    Attributes:
        mean: itself.
        variance: of the mean, as estimated from the values.
    """

    mean: float
    variance: float


def t_quantile(freedom: float) -> float | None:
    """The 97.5% quantile of Student's t, to 1%; None with fewer than 3 degrees of freedom."""
    if freedom < _LEAST_FREEDOM:
        return None
    return _Z + (_G1 + (_G2 + _G3 / freedom) / freedom) / freedom


def mean_interval(estimate: Estimate, quantile: float) -> tuple[float, float]:
    """Where the expectation is: mean ± t · standard error."""
    reach = quantile * math.sqrt(max(estimate.variance, 0.0))
    return estimate.mean - reach, estimate.mean + reach


def ratio_interval(
    numerator: Estimate, denominator: Estimate, covariance: float, quantile: float
) -> tuple[float | None, float | None]:
    """Where the ratio of two expectations is, both of them known to be at least 0. Fieller's theorem (1954).

    With means a, c, their variances v_a, v_c and their covariance v_ac, the interval is all R ≥ 0 for which a − R·c cannot be
    told from 0: (a − Rc)² ≤ t² (v_a − 2R·v_ac + R²·v_c). Unlike an error carried through the quotient it holds however near
    to 0 the denominator is.

    Args:
        numerator: a and v_a.
        denominator: c and v_c.
        covariance: v_ac.
        quantile: t.

    Returns:
        Its ends. The upper one is None where the denominator may be 0, so that there is none; both are None where nothing
        can be told, or where no R ≥ 0 fits.
    """
    t2 = quantile * quantile
    # q₂ R² − 2 q₁ R + q₀ ≤ 0
    q2 = denominator.mean * denominator.mean - t2 * denominator.variance
    q1 = numerator.mean * denominator.mean - t2 * covariance
    q0 = numerator.mean * numerator.mean - t2 * numerator.variance
    discriminant = q1 * q1 - q2 * q0
    below_zero = (q2 > 0 and denominator.mean <= 0) or (q0 > 0 and numerator.mean <= 0)
    if below_zero or (q2 <= 0 and q0 <= 0) or not 0 <= discriminant < math.inf:
        return None, None
    # The upper root is root/q₂, the lower one q₀/root: no difference of nearly equal numbers.
    root = q1 + math.sqrt(discriminant)
    if root <= 0:
        return None, None
    return max(q0, 0.0) / root, root / q2 if q2 > 0 else None
