"""IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist): one big-endian array a file, images and labels."""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np

from shardsgd.coordinator.data.columns import DEFAULT_LABEL, keep_features
from shardsgd.coordinator.data.dataset import Array, Table
from shardsgd.coordinator.data.label_file import file_beside, label_file
from shardsgd.coordinator.data.shapes import check_same_rows, flatten_rows, label_vector
from shardsgd.errors import DataError
from shardsgd.spec import Data

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_DEFLATE_RATIO = 1032  # of any deflate stream (RFC 1951: at best 258 bytes from 2 bits)
_IMAGES = re.compile(r"images[-.]idx\d.*", re.IGNORECASE)


def is_idx_name(name: str) -> bool:
    """Whether a file is IDX by its name, such as `train-images-idx3-ubyte.gz`. Of gzipped files only IDX is read."""
    return re.search(r"idx\d|-ubyte|\.gz$", name, re.IGNORECASE) is not None


def images_in(folder: Path) -> Path | None:
    """The images file of a folder: the only one, else that of MNIST's training rows; None if that does not decide."""
    found = sorted(path for path in folder.iterdir() if _IMAGES.search(path.name) and path.is_file())
    if len(found) == 1:
        return found[0]
    return next((path for path in found if path.name.startswith("train-images")), None)


def read_idx(path: Path, data: Data) -> Table:
    """Reads an images file and its labels: the file that `data.label` names, else the one of the usual name beside it.

    Raises:
        DataError: a file is missing or damaged, or images and labels are not as many.
    """
    labels_path = _labels_path(path, data.label)
    features = flatten_rows(_read_array(path), str(path))
    labels = label_vector(_read_array(labels_path), str(labels_path))
    check_same_rows(len(features), str(path), len(labels), str(labels_path))
    names = tuple(f"pixel_{pixel}" for pixel in range(features.shape[1]))
    return keep_features(Table(features, labels, names, str(path)), data.features)


def _labels_path(images: Path, label: str) -> Path:
    if label != DEFAULT_LABEL:
        return label_file(images, label)
    usual = re.sub(r"idx\d", "idx1", images.name.replace("images", "labels")).removesuffix(".gz")
    if usual != images.name.removesuffix(".gz"):
        for name in (usual, f"{usual}.gz") if images.suffix != ".gz" else (f"{usual}.gz", usual):
            if beside := file_beside(images, name):
                return beside
    raise DataError(f"{images}: no labels file {usual} or {usual}.gz beside it; name the labels file in data.label")


def _read_array(path: Path) -> Array:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        limit = path.stat().st_size * (_MAX_DEFLATE_RATIO if packed else 1)
        if not packed:
            return _parse(file, path, limit)
        try:
            with gzip.open(file) as unpacked:
                return _parse(unpacked, path, limit)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: damaged gzip file: {error}") from None


def _parse(file: io.BufferedIOBase, path: Path, limit: int) -> Array:
    """Reads the array. `limit`: the most bytes there can be, so that a header's claim is never allocated unseen."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        codes = ", ".join(f"{code:02x}" for code in _DTYPES)
        raise DataError(
            f"{path}: not an IDX file: begins with bytes {magic.hex(' ') or '(none)'}; "
            f"accepted: 00 00, a type of {codes}, and the number of dimensions"
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(f"{path}: truncated IDX file: ends inside its header")
    shape = tuple(int(extent) for extent in np.frombuffer(header, ">u4"))
    dtype = np.dtype(_DTYPES[magic[2]])
    claimed = math.prod(shape) * dtype.itemsize
    # One byte more than claimed, to notice a file that goes on.
    content = file.read(claimed + 1) if claimed <= limit else b""
    if len(content) < claimed:
        raise DataError(f"{path}: truncated IDX file: shape {shape} needs {claimed} bytes of data, which are not there")
    if len(content) > claimed:
        raise DataError(f"{path}: IDX file longer than its shape {shape}, which needs {claimed} bytes of data")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
