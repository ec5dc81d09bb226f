"""Uploaded datasets as files, named by their content: whole and checked, or not there.

UploadError(InputError)
├── UploadTooLargeError  it is larger than allowed
└── ChecksumError        other bytes came than were announced
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shardsgd.coordinator.files import sync_folder
from shardsgd.coordinator.service.jobs import DiskFullError
from shardsgd.errors import InputError

SUFFIXES = (".csv", ".npy", ".npz", ".parquet")
# Left free on the disk, so that no upload keeps the job store from writing.
_KEPT_FREE_BYTES = 64 * 2**20
_SHA256 = re.compile("[0-9a-f]{64}")
# A whole one, or a temporary one: `.SHA256.suffix.TOKEN`.
_OURS = re.compile(r"\.?([0-9a-f]{64})\.[.\w]+")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UploadError(InputError):
    """An upload is not what it should be."""


class UploadTooLargeError(UploadError):
    """A dataset is larger than the service takes."""


class ChecksumError(UploadError):
    """The bytes that came are not those of the announced checksum."""


class Upload:
    """A dataset that is coming in. Made by `DatasetFiles.begin`; for one thread at a time."""

    def __init__(self, file: BinaryIO, temporary: Path, path: Path, sha256: str, size_bytes: int) -> None:
        self._file = file
        self._temporary = temporary
        self._path = path
        self._sha256 = sha256
        self._size_bytes = size_bytes
        self._came_bytes = 0
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """The next bytes.

        Raises:
            UploadError: these are more than were announced.
            DiskFullError: the disk is full.
        """
        self._came_bytes += len(chunk)
        if self._came_bytes > self._size_bytes:
            raise UploadError(f"size_bytes = {self._size_bytes}: at least {self._came_bytes} bytes came")
        self._hash.update(chunk)
        rest = memoryview(chunk)
        with _disk_in_words(self._path.parent):
            while rest:
                rest = rest[self._file.write(rest) :]

    def finish(self) -> Path:
        """Checks what came and puts it in its place, durably.

        Returns:
            The file. If the same content was there already, it is there once.

        Raises:
            UploadError: fewer bytes came than were announced.
            ChecksumError: other bytes came.
            DiskFullError: the disk is full.
        """
        if self._came_bytes < self._size_bytes:
            raise UploadError(f"size_bytes = {self._size_bytes}: only {self._came_bytes} bytes came")
        came = self._hash.hexdigest()
        if came != self._sha256:
            raise ChecksumError(f"sha256 = {self._sha256}: the bytes that came have {came}; send the file again")
        with _disk_in_words(self._path.parent):
            os.fsync(self._file.fileno())
            os.replace(self._temporary, self._path)
            sync_folder(self._path.parent)
        return self._path


class DatasetFiles:
    """The folder of uploaded datasets. Thread-safe; one object a folder.

    Which of them somebody still has is for the store to know. That an owner has a dataset is to be recorded before the block of
    its upload is left, so that `sweep` does not come between.
    """

    def __init__(self, folder: Path, max_upload_bytes: int) -> None:
        """Makes the folder, readable for this user only, if it is not there.

        Args:
            folder: of the files.
            max_upload_bytes: of one dataset.

        Raises:
            OSError: it cannot be made.
        """
        self._folder = folder
        self._max_upload_bytes = max_upload_bytes
        self._lock = threading.Lock()
        self._coming = Counter[str]()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, sha256: str, suffix: str) -> Path:
        """Where a dataset is, if it is there.

        Raises:
            UploadError: this is not a checksum, or not a format.
        """
        if not _SHA256.fullmatch(sha256):
            raise UploadError(f"sha256 = {sha256[:80]!r}: accepted: 64 digits 0-9 a-f")
        if suffix not in SUFFIXES:
            raise UploadError(f"format = {suffix[:80]!r}: accepted: {' '.join(SUFFIXES)}")
        return self._folder / f"{sha256}{suffix}"

    @contextmanager
    def begin(self, sha256: str, size_bytes: int, suffix: str) -> Iterator[Upload]:
        """Takes a dataset in, for the length of a block; one that is not finished by its end leaves nothing.

        Args:
            sha256: of all its bytes, in lower-case hexadecimal.
            size_bytes: of all its bytes.
            suffix: of its file name: one of `SUFFIXES`.

        Raises:
            UploadError: an argument is wrong.
            UploadTooLargeError: it is larger than allowed.
            DiskFullError: the disk has no room for it.
        """
        path = self.path(sha256, suffix)
        if size_bytes < 1:
            raise UploadError(f"size_bytes = {size_bytes}: accepted: 1 … {self._max_upload_bytes}")
        if size_bytes > self._max_upload_bytes:
            raise UploadTooLargeError(f"size_bytes = {size_bytes}: accepted: 1 … {self._max_upload_bytes}")
        free_bytes = shutil.disk_usage(self._folder).free
        if free_bytes < size_bytes + _KEPT_FREE_BYTES:
            raise DiskFullError(f"{self._folder}: no room for a dataset of {size_bytes} bytes: {free_bytes} are free")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with self._not_swept(sha256), _disk_in_words(self._folder):
            # Unbuffered: closing has nothing left to write, and so cannot fail.
            file = open(temporary, "xb", buffering=0, opener=_private)  # noqa: SIM115
            try:
                with file:
                    yield Upload(file, temporary, path, sha256, size_bytes)
            finally:
                temporary.unlink(missing_ok=True)

    def sweep(self, is_known: Callable[[str], bool]) -> list[Path]:
        """Removes what nobody has: also what a killed service left behind.

        Args:
            is_known: whether any owner has the dataset of this sha256; asked one by one, while no upload can begin or end.

        Returns:
            What was removed.
        """
        removed = []
        with self._lock:
            for path in sorted(self._folder.iterdir()):
                named = _OURS.fullmatch(path.name)
                if named is None or self._coming[named[1]]:
                    continue
                if path.name.startswith(".") or not is_known(named[1]):
                    path.unlink()
                    removed.append(path)
        return removed

    @contextmanager
    def _not_swept(self, sha256: str) -> Iterator[None]:
        with self._lock:
            self._coming[sha256] += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming[sha256] -= 1
                if not self._coming[sha256]:
                    del self._coming[sha256]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def _disk_in_words(folder: Path) -> Iterator[None]:
    """Raises what a full disk, a quota or a limit on file sizes says as a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(f"{folder}: {os.strerror(error.errno).lower()}: the dataset cannot be kept") from None
        raise
