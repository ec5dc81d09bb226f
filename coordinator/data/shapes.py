"""Arrays of any shape as rows of features with a label each."""

from __future__ import annotations

import math

from shardsgd.coordinator.data.dataset import Array
from shardsgd.errors import DataError


def flatten_rows(array: Array, where: str) -> Array:
    """[rows, features]: every row's values as one vector, such as the pixels of an image."""
    if array.ndim == 0:
        raise DataError(f"{where}: a single value; accepted: one entry a row")
    return array.reshape(len(array), math.prod(array.shape[1:]))


def label_vector(array: Array, where: str) -> Array:
    """[rows], from [rows] or [rows, 1]."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: labels of shape {array.shape}; accepted: one number or text a row, shape [rows]")
    return array


def check_same_rows(features: int, features_name: str, labels: int, labels_name: str) -> None:
    """Raises DataError where features and labels are not as many."""
    if features != labels:
        raise DataError(
            f"{features_name} has {features} rows but {labels_name} has {labels} labels; they must be as many"
        )
