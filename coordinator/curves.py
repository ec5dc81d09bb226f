"""What the report's pictures do to a series of numbers before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.records import VariancePoint

Series = NDArray[np.float64]

MOST_POINTS = 1_500
# Beyond this a picture shows nothing, and the axis limits would overflow.
_LARGEST_DRAWN = 1e100


def series(values: Sequence[float | None]) -> Series:
    """The values as an array, with NaN where there is nothing that can be drawn."""
    array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        array[~(np.abs(array) <= _LARGEST_DRAWN)] = np.nan
    return array


def drawable(x: Series, y: Series) -> tuple[Series, Series]:
    """The points of which both coordinates are numbers."""
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def thinned(x: Series, y: Series, most: int = MOST_POINTS) -> tuple[Series, Series]:
    """At most `most` of the points, among them the lowest and the highest of every stretch and both ends.

    So a spike of one step in 100,000 is still seen.
    """
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), (most - 2) // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, end in pairwise(edges.tolist()):
        kept.update((start + int(y[start:end].argmin()), start + int(y[start:end].argmax())))
    indices = sorted(kept)
    return x[indices], y[indices]


def smoothed(y: Series, span: int) -> Series:
    """An exponential average that remembers about `span` values, without pull towards its start.

    A recursion and not a difference of cumulative sums: those never recover from one huge value.
    """
    keep = 1 - 1 / span
    total = weight = 0.0
    averages = np.empty_like(y)
    for index, value in enumerate(y.tolist()):
        total = keep * total + value
        weight = keep * weight + 1
        averages[index] = total / weight
    return averages


def is_wide(y: Series) -> bool:
    """Whether only a logarithmic axis shows all of the values."""
    return len(y) > 0 and bool(y.min() > 0) and bool(y.max() > 30 * y.min())


def variance_exponent(points: Sequence[VariancePoint]) -> float | None:
    """The exponent k of measured variance ∝ rows^k, by least squares in logarithms; None with fewer than two points.

    An average over twice the rows comes half as often, so its measurement is twice as uncertain: weight 1/rows.
    """
    usable = [point for point in points if point.measured > 0 and np.isfinite(point.measured)]
    if len({point.rows for point in usable}) < 2:
        return None
    rows = np.array([point.rows for point in usable])
    log_rows, log_measured = np.log(rows), np.log([point.measured for point in usable])
    weights = 1 / rows
    centred = log_rows - np.average(log_rows, weights=weights)
    return float(np.sum(weights * centred * log_measured) / np.sum(weights * centred**2))
