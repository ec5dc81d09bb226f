"""Features at mean 0 and deviation 1, by statistics of the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.data.dataset import Array, Table
from shardsgd.coordinator.data.wording import row_name
from shardsgd.errors import DataError
from shardsgd.spec_problems import show

_BLOCK_CELLS = 2**22  # 32 MiB of float64 at a time, whatever the table's size and type


@dataclass(frozen=True)
class Scaling:
    """What is subtracted from each column and what it is then divided by, [features] each."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


def fit_scaling(table: Table, rows: NDArray[np.int64]) -> Scaling:
    """Mean and population deviation of each column over `rows`; constant columns keep scale 1.

    Raises:
        DataError: the values of a column are too large for their deviation to be a finite number.
    """
    columns = table.features.shape[1]
    mean, scale = np.empty(columns), np.empty(columns)
    width = max(1, _BLOCK_CELLS // len(rows))
    for start in range(0, columns, width):
        block = slice(start, start + width)
        x = table.features[rows, block].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean[block], scale[block] = x.mean(axis=0), x.std(axis=0)
        # Told by equality: the rounded mean of equal numbers need not be that number, nor their deviation 0.
        constant = (x == x[0]).all(axis=0)
        mean[block][constant] = x[0, constant]
        scale[block][constant | (scale[block] == 0)] = 1
    if not (finite := np.isfinite(mean) & np.isfinite(scale)).all():
        column = table.feature_names[int(finite.argmin())]
        raise DataError(
            f"{table.source}: column {show(column)}: values too large to standardize; use data.standardize = false"
        )
    return Scaling(mean, scale)


def scaled(table: Table, rows: NDArray[np.int64], scaling: Scaling | None, dtype: np.dtype[Any]) -> Array:
    """The features of `rows`, scaled in float64, then cast to `dtype`; C-contiguous.

    Raises:
        DataError: a value is too large for `dtype`.
    """
    x = table.features[rows].astype(np.float64)
    if scaling is not None:
        x -= scaling.mean
        x /= scaling.scale
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(x, dtype)
    if not (finite := np.isfinite(cast)).all():
        row, column = (int(place) for place in np.unravel_index(finite.argmin(), finite.shape))
        raise DataError(
            f"{table.source}: {row_name(int(rows[row]), table.first_line)}, "
            f"column {show(table.feature_names[column])}: "
            f'{x[row, column]:g} is too large for {dtype}; use batch.precision = "float64"'
        )
    return cast
