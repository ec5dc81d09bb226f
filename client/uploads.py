"""Datasets on their way to a service: arrays or files, hashed, then sent in chunks."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from shardsgd.errors import InputError, ServiceUnavailableError
from shardsgd.protos import training_pb2 as pb
from shardsgd.remote_calls import Calls
from shardsgd.remote_patience import Patience

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CHUNK_BYTES = 2**20
# Deadline of an upload: this, and a second for so many bytes.
_LEAST_S, _SLOWEST_BYTES_A_SECOND = 60.0, 2**18
_FORMATS = {
    ".npz": pb.DATASET_FORMAT_NPZ,
    ".npy": pb.DATASET_FORMAT_NPY,
    ".csv": pb.DATASET_FORMAT_CSV,
    ".parquet": pb.DATASET_FORMAT_PARQUET,
}

# Told how many bytes have been sent, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parcel:
    """A file to be sent.

    Attributes:
        path: where it is.
        header: its size, checksum and format.
    """

    path: Path
    header: pb.DatasetHeader


@contextmanager
def packed(data: Mapping[str, ArrayLike] | str | os.PathLike[str]) -> Iterator[Parcel]:
    """Data as a file to be sent; arrays are in a temporary one for the length of the block.

    Args:
        data: arrays by name, or the path of an .npz, .npy, .csv or .parquet file.

    Raises:
        InputError: it cannot be read or is of another format.
    """
    if isinstance(data, Mapping):
        with tempfile.TemporaryDirectory(prefix="shardsgd-") as folder:
            path = Path(folder) / "arrays.npz"
            write_npz(path, data)
            yield _parcel(path)
    else:
        yield _parcel(Path(os.path.expanduser(data)))


def upload(calls: Calls, parcel: Parcel, patience: Patience, progress: Progress | None = None) -> str:
    """Sends a file, again from its beginning wherever the connection breaks. The service keeps it once, by its content.

    Returns:
        What `data.source` is to be.

    Raises:
        InputError: the file cannot be read.
        RemoteError: the service refuses it, failed or is out of reach.
    """
    timeout_s = _LEAST_S + parcel.header.size_bytes / _SLOWEST_BYTES_A_SECOND
    while True:
        try:
            with closing(_Parts(parcel, progress)) as parts:
                answer = calls.send(pb.UploadDatasetRequest, parts, pb.UploadDatasetResponse, timeout_s=timeout_s)
            return answer.source
        except ServiceUnavailableError as error:
            if error.code == "DEADLINE_EXCEEDED":
                raise
            patience.after(error)


def write_npz(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Arrays as an .npz file; equal arrays in equal order make equal bytes. Not by NumPy, which reserves some names.

    Raises:
        InputError: an array holds something else than numbers or texts, or has no name.
    """
    import numpy as np  # noqa: PLC0415  # `import shardsgd` need not load it

    if not arrays:
        raise InputError("data: no arrays; expected features and labels by name")
    with zipfile.ZipFile(path, "w") as archive:
        named: Iterable[tuple[object, ArrayLike]] = arrays.items()
        for name, given in named:
            if not (isinstance(name, str) and name):
                raise InputError(f"data: {name!r} is not the name of an array; expected a text")
            # ZipInfo's default date is a fixed one: content alone decides the checksum.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                try:
                    np.lib.format.write_array(member, np.asarray(given), allow_pickle=False)
                except ValueError as error:
                    raise InputError(f"data: array {name!r} cannot be sent: {error}") from None


def _parcel(path: Path) -> Parcel:
    kind = _FORMATS.get(path.suffix.lower())
    accepted = ", ".join(_FORMATS)
    if path.is_dir():
        raise InputError(f"{path}: a folder cannot be uploaded; accepted: one {accepted} file")
    if kind is None:
        raise InputError(f"{path}: cannot be uploaded as it is; accepted: {accepted}")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return Parcel(path, pb.DatasetHeader(sha256=sha256, size_bytes=file.tell(), format=kind))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


class _Parts:
    """The messages of an upload. gRPC's own thread takes them, and may be at it when the call is over."""

    def __init__(self, parcel: Parcel, progress: Progress | None) -> None:
        try:
            self._file: BinaryIO = parcel.path.open("rb")
        except OSError as error:
            raise InputError(f"{parcel.path}: cannot be read: {error.strerror or error}") from None
        self._header: pb.DatasetHeader | None = parcel.header
        self._size_bytes = parcel.header.size_bytes
        self._progress = progress
        self._lock = threading.Lock()

    def __iter__(self) -> _Parts:
        return self

    def __next__(self) -> pb.UploadDatasetRequest:
        with self._lock:
            if self._file.closed:
                raise StopIteration
            if self._header is not None:
                header, self._header = self._header, None
                return pb.UploadDatasetRequest(header=header)
            # No more than was promised, should the file have grown.
            sent = self._file.tell()
            chunk = self._file.read(min(CHUNK_BYTES, self._size_bytes - sent))
            if not chunk:
                raise StopIteration
        if self._progress is not None:
            self._progress(sent + len(chunk), self._size_bytes)
        return pb.UploadDatasetRequest(chunk=chunk)

    def close(self) -> None:
        """Nothing more is to be sent."""
        with self._lock:
            self._file.close()
