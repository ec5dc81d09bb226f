"""Named arrays as a safetensors file, written straight from their memory.

The library's own writer makes temporary files under names of its own, which a kill would leave behind, and tells no checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.files import Guard, replace_file

# Of what is hashed and written at a time. Both let other threads run; every change of turns has its price.
_CHUNK_BYTES = 8 * 2**20
_DTYPES = {"float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class Digest:
    """What tells whether a file is still the one that was written.

    Attributes:
        nbytes: its size.
        sha256: of its bytes, in hexadecimal.
    """

    nbytes: int
    sha256: str


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], guard: Guard = nullcontext) -> Digest:
    """Writes a safetensors file, whole and durable or not at all.

    Args:
        path: the file.
        arrays: float32 or float64, by name. Equal arrays in equal order make equal bytes.
        guard: see `write_atomically`.

    Raises:
        OSError: the disk is full, or whatever else it says; the file is as it was.
    """

    def write(file: BinaryIO) -> Digest:
        digest, nbytes = hashlib.sha256(), 0
        for chunk in _chunks(arrays):
            digest.update(chunk)
            nbytes += file.write(chunk)
        return Digest(nbytes, digest.hexdigest())

    return replace_file(path, write, guard)


def read_digest(path: Path) -> Digest:
    """What a file holds now."""
    with path.open("rb") as file:
        return Digest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _chunks(arrays: Mapping[str, NDArray[Any]]) -> Iterator[bytes | memoryview]:
    """The file's bytes: the header's length, the header, the arrays one after another."""
    header: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": span}
        offset = span[1]
    text = json.dumps(header).encode()
    # Data begins at a multiple of 8 bytes, as readers that map the file like it.
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for array in arrays.values():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        raw = little.reshape(-1).view(np.uint8).data
        for start in range(0, array.nbytes, _CHUNK_BYTES):
            yield raw[start : start + _CHUNK_BYTES]
