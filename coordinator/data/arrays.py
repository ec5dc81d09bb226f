"""NumPy files: `.npz` with named arrays, `.npy` with one."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from shardsgd.coordinator.data.columns import DEFAULT_LABEL, keep_features
from shardsgd.coordinator.data.dataset import Array, Table
from shardsgd.coordinator.data.label_file import label_file
from shardsgd.coordinator.data.npy_file import read_array
from shardsgd.coordinator.data.shapes import check_same_rows, flatten_rows, label_vector
from shardsgd.coordinator.data.wording import listing, suggestion
from shardsgd.errors import DataError
from shardsgd.spec import Data
from shardsgd.spec_problems import show

_FEATURE_ARRAYS = ("features", "x", "X")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def read_npz(path: Path, data: Data) -> Table:
    """Reads two arrays of an archive: labels called `data.label`, and features.

    Features are the array that `data.features` names, else the one called "features", "x" or "X", else the only other
    one.

    Raises:
        DataError: an array is missing, damaged or of a kind that cannot be trained on.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                member.filename[:-4]: member for member in archive.infolist() if member.filename.endswith(".npy")
            }
            features_name = _features_name(list(members), data, path)
            arrays = {}
            for name in (features_name, data.label):
                with archive.open(members[name]) as file:
                    where = f"{path}: array {show(name)}"
                    arrays[name] = read_array(file, members[name].file_size, where, texts=name == data.label)
    except _ZIP_ERRORS as error:
        raise DataError(f"{path}: cannot be read as an .npz archive: {error}") from None
    features = flatten_rows(arrays[features_name], f"{path}: array {show(features_name)}")
    labels = label_vector(arrays[data.label], f"{path}: array {show(data.label)}")
    check_same_rows(len(features), f"{path}: array {show(features_name)}", len(labels), f"array {show(data.label)}")
    names = tuple(f"{features_name}_{column}" for column in range(features.shape[1]))
    return Table(features, labels, names, str(path))


def read_npy(path: Path, data: Data) -> Table:
    """Reads a 2-D array one column of which holds the labels, or features whose labels have a file of their own.

    `data.label` is a column number (from the end if negative; by default the last) or the name of an `.npy` file in the
    same folder. Features are called by their column numbers.

    Raises:
        DataError: the array is damaged, has no such column, or is of a kind that cannot be trained on.
    """
    array = _read_npy_array(path, texts=False)
    if data.label.endswith(".npy"):
        labels_path = label_file(path, data.label)
        features = flatten_rows(array, str(path))
        labels = label_vector(_read_npy_array(labels_path, texts=True), str(labels_path))
        check_same_rows(len(features), str(path), len(labels), str(labels_path))
        columns = list(range(features.shape[1]))
    else:
        if array.ndim != 2:
            raise DataError(
                f"{path}: shape {array.shape}; accepted: rows and columns, or a file of labels as data.label"
            )
        label = _label_column(data.label, array.shape[1], path)
        columns = [column for column in range(array.shape[1]) if column != label]
        features, labels = array[:, columns], array[:, label]
    names = tuple(str(column) for column in columns)
    return keep_features(Table(features, labels, names, str(path)), data.features)


def _features_name(names: Sequence[str], data: Data, path: Path) -> str:
    if data.label not in names:
        hint = suggestion(data.label, names)
        raise DataError(f"{path}: no array {show(data.label)} (data.label); {hint}its arrays: {listing(names)}")
    others = [name for name in names if name != data.label]
    if data.features is not None:
        name = data.features[0]
        if len(data.features) > 1 or name not in others:
            raise DataError(
                f"{path}: data.features = {list(data.features)}; accepted: the name of one array of {listing(others)}"
            )
        return name
    usual = [name for name in _FEATURE_ARRAYS if name in others]
    candidates = usual or others
    if len(candidates) != 1:
        raise DataError(
            f"{path}: cannot tell which array holds the features; set data.features to one of: {listing(candidates)}"
            if candidates
            else f"{path}: {show(data.label)} is the only array; one more is needed to learn from"
        )
    return candidates[0]


def _read_npy_array(path: Path, texts: bool) -> Array:
    with path.open("rb") as file:
        return read_array(file, path.stat().st_size, str(path), texts)


def _label_column(label: str, columns: int, path: Path) -> int:
    try:
        column = -1 if label == DEFAULT_LABEL else int(label)
    except ValueError:
        column = columns
    if not -columns <= column < columns:
        raise DataError(
            f"{path}: data.label = {show(label)}; accepted: a column number from {-columns} to {columns - 1}, "
            "or the name of an .npy file in the same folder"
        )
    return column % columns
