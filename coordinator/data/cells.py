"""CSV cell by cell, with the standard library: slow, but knows the line and column of what is wrong."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from shardsgd.errors import DataError
from shardsgd.spec_problems import show


@dataclass(frozen=True)
class Header:
    """The first record of a CSV file that is not empty, and where the rows begin.

    Attributes:
        names: of the columns.
        records: records up to and with the header; empty lines count as records.
        first_line: number of the line on which the first row begins.
    """

    names: tuple[str, ...]
    records: int
    first_line: int


def read_header(path: Path) -> Header:
    """Reads the header and makes sure that a row follows it.

    Raises:
        DataError: the file is empty, has only a header, or is not text.
    """
    names: tuple[str, ...] = ()
    records = 0
    for number, (line, row) in enumerate(_records(path), start=1):
        if row and names:
            return Header(names, records, line)
        if row:
            names, records = tuple(row), number
            for name in names:
                _check_text(name, f"{path}: line {line}")
    if names:
        raise DataError(f"{path}: has a header but no rows")
    raise DataError(f"{path}: the file is empty; expected a header line with the names of the columns, then rows")


def check_cells(path: Path, header: Header, features: Sequence[str], label: str) -> None:
    """Looks at every cell that is used.

    Raises:
        DataError: names the line and column of the first cell that cannot be trained on.
    """
    wanted = {*features, label}
    columns = [(place, name) for place, name in enumerate(header.names) if name in wanted]
    for line, row in islice(_records(path), header.records, None):
        if not row:
            continue
        if len(row) != len(header.names):
            raise DataError(
                f"{path}: line {line}: {_fields(len(row))}, but the header names {_fields(len(header.names))} "
                "(a comma inside a text needs quotes around the text)"
            )
        for place, name in columns:
            where = f"{path}: line {line}, column {show(name)}"
            _check_text(row[place], where)
            if not row[place].strip():
                raise DataError(f"{where}: the cell is empty; every row needs a value here")
            if name != label:
                _check_number(row[place], where)


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Pairs of the line a record begins on and its fields; an empty line is a record without fields."""
    # Bytes that are not UTF-8 are kept apart as surrogates: they matter only in cells that are used.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)  # strict: a quote that is never closed is an error
        line = 1
        try:
            for row in reader:
                yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}: line {line}: not valid CSV: {error} (is a quote never closed?)") from None


def _fields(count: int) -> str:
    return f"{count} field{'s' if count != 1 else ''}"


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: not UTF-8 text; save the file in the encoding UTF-8") from None


def _check_number(cell: str, where: str) -> None:
    try:
        # float() also takes digits of other scripts, 1_000 and line breaks around a number, which pyarrow does not.
        plain = cell.isascii() and "_" not in cell and cell.strip() == cell.strip(" \t")
        value = float(cell) if plain else None
    except ValueError:
        value = None
    if value is None:
        raise DataError(
            f"{where}: {show(cell)} is not a number; features must be numbers (only the label may be a text)"
        )
    if not math.isfinite(value):
        raise DataError(f"{where}: {show(cell)} is not a finite number; features must be finite")
