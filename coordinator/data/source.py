"""What `data.source` means: a bundled set, a synthetic one, or the format of a file or folder."""

from __future__ import annotations

import os
from pathlib import Path

from shardsgd.coordinator.data import synthetic
from shardsgd.coordinator.data.arrays import read_npy, read_npz
from shardsgd.coordinator.data.bundled import BUNDLED, read_bundled
from shardsgd.coordinator.data.columns import DEFAULT_LABEL, keep_features
from shardsgd.coordinator.data.dataset import Table
from shardsgd.coordinator.data.delimited import read_csv
from shardsgd.coordinator.data.idx import images_in, is_idx_name, read_idx
from shardsgd.coordinator.data.parquet import parquet_files, read_parquet
from shardsgd.coordinator.data.wording import suggestion
from shardsgd.errors import DataError
from shardsgd.spec import Data, looks_like_path
from shardsgd.spec_problems import show

_FORMATS = "a .csv, .parquet, .npz, .npy or IDX file (plain or .gz), or a folder of .parquet files or with an IDX pair"
_TABLE_READERS = {".csv": read_csv, ".npz": read_npz, ".npy": read_npy}


def read_table(data: Data) -> Table:
    """Reads the rows of `data.source`: nothing is split, scaled or encoded yet.

    Raises:
        DataError: there is no such source, or it cannot be read.
    """
    if data.source.startswith(synthetic.PREFIX):
        table = synthetic.read_synthetic(data.source)
    elif data.source in BUNDLED:
        table = read_bundled(data.source)
    elif looks_like_path(data.source):
        # os.path, because Path.expanduser raises where there is no such user; then the file is simply missing.
        return _read_path(Path(os.path.expanduser(data.source)).absolute(), data)
    else:
        raise _unknown(data.source)
    if data.label != DEFAULT_LABEL:
        raise DataError(f"data.label = {show(data.label)}: {data.source} has its own labels; leave data.label out")
    return keep_features(table, data.features)


def _read_path(path: Path, data: Data) -> Table:
    try:
        if path.is_dir():
            return _read_folder(path, data)
        if not path.exists():
            raise DataError(f"{path}: no such file or folder (data.source)")
        if not path.is_file():
            raise DataError(f"{path}: neither a file nor a folder (data.source)")
        return _read_file(path, data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read_file(path: Path, data: Data) -> Table:
    suffix = path.suffix.lower()
    if suffix in _TABLE_READERS:
        return _TABLE_READERS[suffix](path, data)
    if suffix == ".parquet":
        return read_parquet([path], data, source=str(path))
    if is_idx_name(path.name):
        return read_idx(path, data)
    raise DataError(f"{path}: unknown format {show(path.suffix)} (data.source); accepted: {_FORMATS}")


def _read_folder(path: Path, data: Data) -> Table:
    if files := parquet_files(path):
        return read_parquet(files, data, source=str(path))
    if images := images_in(path):
        return read_idx(images, data)
    raise DataError(
        f"{path}: a folder with neither .parquet files nor one IDX pair (data.source); accepted: {_FORMATS}"
    )


def _unknown(source: str) -> DataError:
    known = ", ".join(show(name) for name in BUNDLED)
    # Without a slash or a known suffix a name is never taken for a path, so say how to write one.
    hint = (
        f'for the file or folder of that name write "./{source}"; '
        if Path(source).exists()
        else suggestion(source, BUNDLED)
    )
    return DataError(
        f"data.source = {show(source)}: no such set; {hint}"
        f"accepted: {known}, {synthetic.EXAMPLES}, or the path of {_FORMATS}"
    )
