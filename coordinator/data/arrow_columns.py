"""Arrow columns as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shardsgd.coordinator.data.dataset import Array
from shardsgd.errors import DataError

_LONGEST_TEXT = 256


def stack_columns(columns: Sequence[Array]) -> Array:
    """[rows, columns] of the dtype that holds all columns."""
    stacked = np.empty((len(columns[0]), len(columns)), np.result_type(*{column.dtype for column in columns}))
    for place, column in enumerate(columns):
        stacked[:, place] = column
    return stacked


def text_array(column: pa.ChunkedArray, where: str) -> NDArray[Any]:
    """Text labels as an array of fixed-width texts.

    Raises:
        DataError: a text is too long to be a class name, which would cost that width in every row.
    """
    longest = pc.max(pc.utf8_length(column)).as_py() or 0
    if longest > _LONGEST_TEXT:
        raise DataError(f"{where}: a label of {longest} characters; accepted: at most {_LONGEST_TEXT}")
    return np.array(column.to_pylist(), dtype=np.str_)
