"""Labels as the loss needs them: class numbers, or targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shardsgd.coordinator.data.dataset import Array, Table
from shardsgd.coordinator.data.wording import listing, row_name
from shardsgd.errors import DataError
from shardsgd.spec_problems import show

_MAX_CLASSES = 1000
_FEW_CLASSES = 20


@dataclass(frozen=True)
class Labels:
    """Encoded labels.

    Attributes:
        values: [rows], int32 class numbers or float targets.
        classes: names of the classes in the order of their numbers; empty for targets.
        outputs: outputs the network needs.
    """

    values: Array
    classes: tuple[str, ...]
    outputs: int


def encode_labels(table: Table, loss: str, dtype: np.dtype[Any]) -> Labels:
    """Encodes the labels of all rows for a loss; targets get `dtype`.

    Raises:
        DataError: the labels are not of the kind that the loss needs.
    """
    if loss == "squared_error":
        return Labels(_targets(table, dtype), (), 1)
    distinct, numbers = np.unique(table.labels, return_inverse=True)
    _check_classes(distinct, table)
    classes = tuple(_class_name(label) for label in distinct)
    if loss == "logistic":
        if len(classes) != 2:
            raise DataError(
                f'{table.source}: {len(classes)} classes ({listing(classes)}), but objective.loss = "logistic" needs '
                'exactly 2; use "softmax_cross_entropy"'
            )
        return Labels(numbers.astype(np.int32), classes, 1)
    return Labels(numbers.astype(np.int32), classes, len(classes))


def _targets(table: Table, dtype: np.dtype[Any]) -> Array:
    if table.labels.dtype.kind == "U":
        raise DataError(
            f"{table.source}: the labels are texts, such as {show(table.labels[0])}, but "
            'objective.loss = "squared_error" needs numbers; use "softmax_cross_entropy" to learn classes'
        )
    with np.errstate(over="ignore"):
        targets = table.labels.astype(dtype)
    if not (finite := np.isfinite(targets)).all():
        row = int(finite.argmin())
        raise DataError(
            f"{table.source}: {row_name(row, table.first_line)}: the label {table.labels[row]} is too large for "
            f'{dtype}; use batch.precision = "float64"'
        )
    return targets


def _check_classes(distinct: Array, table: Table) -> None:
    """Raises DataError where labels can hardly be meant as classes."""
    rows, count = len(table.labels), len(distinct)
    if count == 1:
        only = _class_name(distinct[0])
        raise DataError(f"{table.source}: all {rows} rows are of one class only, {show(only)}; at least two are needed")
    if distinct.dtype.kind == "f" and (fractions := distinct[distinct != np.floor(distinct)]).size:
        raise _regression(table.source, f"fractions, such as {fractions[0]}")
    rows_a_class = 2 if count <= _FEW_CLASSES else 3  # the diabetes set has 214 different targets in 442 rows
    if count == 2 or (count <= _MAX_CLASSES and count * rows_a_class <= rows):
        return
    found = f"{count} different values in {rows} rows, such as {show(_class_name(distinct[0]))}"
    if distinct.dtype.kind == "U":
        raise DataError(
            f"{table.source}: the labels are {found}: too many to be classes; "
            f"accepted: at most {_MAX_CLASSES}, with {rows_a_class} rows each on average"
        )
    raise _regression(table.source, found)


def _regression(source: str, found: str) -> DataError:
    return DataError(
        f"{source}: the labels are {found}: this looks like regression; "
        'use objective.loss = "squared_error", or labels that are few classes'
    )


def _class_name(label: Any) -> str:
    """`3` for 3 and for 3.0, so that a format without integers names its classes alike."""
    value = label.item()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
