"""CSV files: read by pyarrow, and looked through cell by cell only where something is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from shardsgd.coordinator.data.arrow_columns import stack_columns, text_array
from shardsgd.coordinator.data.cells import check_cells, read_header
from shardsgd.coordinator.data.columns import choose_columns
from shardsgd.coordinator.data.dataset import Array, Table
from shardsgd.errors import DataError
from shardsgd.spec import Data
from shardsgd.spec_problems import show

_BLOCK_BYTES = 2**25  # pyarrow's default of 1 MiB must hold a whole row, and a row of an image set may be longer


def read_csv(path: Path, data: Data) -> Table:
    """Reads a comma-separated UTF-8 file with a header line. Features must be numbers, labels may be texts.

    Raises:
        DataError: names the line and column of the first cell that is wrong.
    """
    header = read_header(path)
    features = choose_columns(header.names, data, str(path))
    types = dict.fromkeys(features, pa.float64()) | {data.label: pa.string()}
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(
                column_names=header.names, skip_rows_after_names=header.records, block_size=_BLOCK_BYTES
            ),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(types), column_types=types, null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowException as error:
        check_cells(path, header, features, data.label)
        raise DataError(f"{path}: cannot be read as CSV: {str(error).splitlines()[0]}") from None
    one_row_a_line = _last_line(path) == header.first_line + table.num_rows - 1
    # pyarrow takes a quote that is never closed for a field up to the end of the file: a row of many lines.
    if not one_row_a_line or any(column.null_count for column in table.columns):
        check_cells(path, header, features, data.label)
    return Table(
        features=stack_columns([table[name].to_numpy() for name in features]),
        labels=_labels(table[data.label], f"{path}: column {show(data.label)}"),
        feature_names=features,
        source=str(path),
        first_line=header.first_line if one_row_a_line else None,
    )


def _last_line(path: Path) -> int:
    """The number of the last line that is not empty."""
    with path.open("rb") as file:
        return max(number for number, line in enumerate(file, start=1) if line.rstrip(b"\r\n"))


def _labels(column: pa.ChunkedArray, where: str) -> Array:
    """Numbers where every cell is one (integers where every cell is one), else texts."""
    trimmed = pc.utf8_trim_whitespace(column)
    labels = None
    # Not integers first: Arrow takes 0x10 for one.
    for kind in (pa.float64(), pa.int64()):
        try:
            labels = trimmed.cast(kind)
        except pa.ArrowInvalid:
            break
    return text_array(column, where) if labels is None else labels.to_numpy()
