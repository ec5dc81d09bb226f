"""Least squares for S(B) = S_min (1 + B_crit/B), in the logarithm of S."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fit(NamedTuple):
    """The law with its two numbers.

    Attributes:
        s_min: steps without noise.
        b_crit: batch size at which twice as many are needed, in rows.
    """

    s_min: float
    b_crit: float

    def steps(self, batch: float) -> float:
        """S(B)."""
        return self.s_min * (1 + self.b_crit / batch)


def fit(batches: list[int], steps: list[float]) -> Fit:
    """The law for which Σ (log steps − log S(B))² is least.

    For a given B_crit the best S_min is a mean; B_crit is searched for between a thousandth of the smallest batch and a
    thousand times the largest, ever finer.
    """
    sizes, logs = np.array(batches, float), np.log(np.array(steps, float))
    low, high = np.log(sizes.min() / 1000), np.log(sizes.max() * 1000)
    for _ in range(12):
        grid = np.linspace(low, high, 101)
        errors = [float(np.sum(_residuals(each, sizes, logs) ** 2)) for each in grid]
        best, spacing = grid[int(np.argmin(errors))], grid[1] - grid[0]
        low, high = best - 2 * spacing, best + 2 * spacing
    b_crit = float(np.exp(best))
    return Fit(float(np.exp(np.mean(logs - np.log1p(b_crit / sizes)))), b_crit)


def _residuals(log_b_crit: float, sizes: NDArray[np.float64], logs: NDArray[np.float64]) -> NDArray[np.float64]:
    shape = logs - np.log1p(np.exp(log_b_crit) / sizes)
    return shape - shape.mean()
