"""Files that survive a crash: whole and durable, or as they were before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file by way of a temporary one beside it: a reader sees the old content or the new, also after a power cut."""
    _replace(path, lambda temporary: temporary.write_bytes(content))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file likewise, straight from the arrays' memory."""

    def write(temporary: Path) -> None:
        try:
            safetensors.numpy.save_file(dict(arrays), temporary, dict(metadata) if metadata else None)
        except safetensors.SafetensorError as error:
            raise OSError(f"{path}: {error}") from error

    _replace(path, write)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        os.close(handle)
        write(Path(temporary))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
            # mkstemp makes private files; results are as readable as the user's umask says.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
