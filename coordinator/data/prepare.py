"""From a table to a dataset: split, encode, scale, deal to shards. Every choice follows from the spec and its seed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.data.dataset import Array, Dataset, Table
from shardsgd.coordinator.data.labels import encode_labels
from shardsgd.coordinator.data.scaling import fit_scaling, scaled
from shardsgd.coordinator.data.wording import row_name
from shardsgd.errors import DataError
from shardsgd.model.sampling import Stream, permutation
from shardsgd.spec import JobSpec
from shardsgd.spec_problems import show


def prepare(table: Table, spec: JobSpec) -> Dataset:
    """Makes a table ready for training as a resolved spec says.

    Rows are split into training and validation first; scaling uses statistics of the training rows only.

    Raises:
        DataError: the rows cannot be trained on as the spec says.
    """
    _check_table(table)
    dtype: np.dtype[Any] = np.dtype(np.float64 if spec.batch.precision == "float64" else np.float32)
    labels = encode_labels(table, spec.objective.loss, dtype)
    training, held_out = _split(table, spec)
    if labels.classes and len(np.unique(labels.values[training])) == 1:
        only = labels.classes[int(labels.values[training[0]])]
        raise DataError(
            f"{table.source}: all {len(training)} training rows are of class {show(only)}; "
            "at least two classes are needed (more rows, another seed, or a smaller data.validation)"
        )
    scaling = fit_scaling(table, training) if spec.data.standardize else None

    def pair(rows: NDArray[np.int64]) -> tuple[Array, Array]:
        return scaled(table, rows, scaling, dtype), labels.values[rows]

    dealt = training[permutation(spec.seed, Stream.DEAL, 0, 0, len(training))]
    shards = tuple(pair(dealt[shard :: spec.batch.shards]) for shard in range(spec.batch.shards))
    validation = pair(held_out) if len(held_out) else None
    return Dataset(
        shards=shards,
        validation=validation,
        rows=len(training),
        features=table.features.shape[1],
        outputs=labels.outputs,
        classes=labels.classes,
        feature_names=table.feature_names,
        mean=scaling.mean if scaling else None,
        scale=scaling.scale if scaling else None,
        fingerprint=_fingerprint([*shards, *([validation] if validation else [])], labels.classes),
    )


def _check_table(table: Table) -> None:
    rows, columns = table.features.shape
    if rows == 0 or columns == 0:
        raise DataError(f"{table.source}: {rows} rows of {columns} features; at least one of each is needed")
    named = [(table.features, table.feature_names)]
    if table.labels.dtype.kind == "f":
        named.append((table.labels[:, np.newaxis], ("the label",)))
    for values, names in named:
        wrong = ~np.isfinite(values)
        if wrong.any():
            row, column = (int(place) for place in np.unravel_index(wrong.argmax(), wrong.shape))
            raise DataError(
                f"{table.source}: {row_name(row, table.first_line)}, column {show(names[column])}: "
                f"{values[row, column]}; every value must be a finite number ({wrong.sum()} are not)"
            )


def _split(table: Table, spec: JobSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows to train on and those held out for validation, both in the order of a seeded permutation."""
    rows, share = len(table.labels), spec.data.validation
    held_out = round(rows * share)
    if share > 0 and not 0 < held_out < rows:
        part = "training" if held_out else "validation"
        raise DataError(
            f"data.validation = {share}: leaves no {part} rows of the {rows} rows of {table.source}; "
            "accepted: 0 to hold out none, or a share that leaves rows for both"
        )
    left = rows - held_out
    if spec.batch.size > left:
        held = f" ({rows} rows, {held_out} held out by data.validation = {share})" if held_out else ""
        raise DataError(
            f"batch.size = {spec.batch.size}: more than the {left} training rows of {table.source}{held}; "
            f"at most {left}"
        )
    order = permutation(spec.seed, Stream.SPLIT, 0, 0, rows)
    return order[held_out:], order[:held_out]


def _fingerprint(pairs: list[tuple[Array, Array]], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for array in (array for pair in pairs for array in pair):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
