"""Parquet: one file, or a folder of files with the same columns, read in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardsgd.coordinator.data.arrow_columns import stack_columns, text_array
from shardsgd.coordinator.data.columns import choose_columns
from shardsgd.coordinator.data.dataset import Array, Table
from shardsgd.coordinator.data.wording import row_name
from shardsgd.errors import DataError
from shardsgd.spec import Data
from shardsgd.spec_problems import show

_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)

# pandas stores a row index under such a name; it is no feature.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files directly in `folder`, by name; hidden files and Spark's `_` files are not data."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".parquet" and path.name[0] not in "._" and path.is_file()
    )


def read_parquet(files: Sequence[Path], data: Data, source: str) -> Table:
    """Reads files as one table. Features must be numbers, labels may be texts.

    Args:
        files: at least one.
        data: names the label and, optionally, the features.
        source: what the table is called: the file or the folder.

    Raises:
        DataError: a file is corrupt, has other columns than the first, or has a cell that cannot be trained on.
    """
    features = choose_columns(_column_names(files[0]), data, str(files[0]))
    parts = []
    for file in files:
        # Columns may be ordered differently from file to file, but a missing or extra one changes what is learned from.
        if different := sorted(set(choose_columns(_column_names(file), data, str(file))) ^ set(features)):
            raise DataError(
                f"{file}: column {show(different[0])} is in this file or in {files[0].name}, but not in both"
            )
        parts.append(_read_file(file, features, data.label))
    labels = [part_labels for _, part_labels in parts]
    if len({part.dtype.kind == "U" for part in labels}) > 1:
        raise DataError(f"{source}: column {show(data.label)} is a text in some of the files and a number in others")
    return Table(np.concatenate([x for x, _ in parts]), np.concatenate(labels), features, source)


def _column_names(file: Path) -> list[str]:
    try:
        names: list[str] = pq.read_schema(file).names
    except _DAMAGE as error:
        raise _corrupt(file, error) from None
    return [name for name in names if not _PANDAS_INDEX.fullmatch(name)]


def _read_file(file: Path, features: tuple[str, ...], label: str) -> tuple[Array, Array]:
    try:
        # Not pq.read_table, which would add columns for folder names such as `year=2026`.
        with pq.ParquetFile(file) as parquet:
            table = parquet.read(columns=[*features, label])
    except _DAMAGE as error:
        raise _corrupt(file, error) from None
    columns = [_column(table[name], f"{file}: column {show(name)}", texts=name == label) for name in (*features, label)]
    return stack_columns(columns[:-1]), columns[-1]


def _column(column: pa.ChunkedArray, where: str, texts: bool) -> Array:
    """The column as an array of numbers, or of texts where `texts` allows them."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if pa.types.is_decimal(kind):
        column, is_number = column.cast(pa.float64()), True
    if not is_number and not (is_text and texts):
        accepted = "integers, floats, decimals, booleans" + (", texts" if texts else "")
        raise DataError(f"{where} is of type {kind}; accepted: {accepted}")
    if column.null_count:
        row = pc.index(pc.is_null(column), value=True).as_py()
        raise DataError(
            f"{where}, {row_name(row)}: no value (null); {column.null_count} such rows; every row needs a value here"
        )
    if is_text:
        return text_array(column, where)
    array: Array = column.to_numpy()
    return array


def _corrupt(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}")
