"""Files that survive a crash: whole and durable, or as they were before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, TypeVar

# Entered around whatever changes a folder; refuses by raising. `Fence.held` is the one that counts.
Guard = Callable[[], AbstractContextManager[None]]
T = TypeVar("T")


def write_atomically(path: Path, content: bytes, guard: Guard = nullcontext) -> None:
    """Writes a file by way of a temporary one beside it: a reader sees the old content or the new, also after a power cut.

    Args:
        path: the file.
        content: of it.
        guard: held while the temporary file is made and while it gets its name, not while it is written.

    Raises:
        OSError: the disk is full, or whatever else it says; the file is as it was.
    """
    replace_file(path, lambda file: file.write(content), guard)


def replace_file(path: Path, write: Callable[[BinaryIO], T], guard: Guard = nullcontext) -> T:
    """Writes a file likewise, by a function that gets the open temporary file; returns what that returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with guard():
        file = temporary.open("xb")
    try:
        # By the open file, never by its name: whoever takes the folder over removes temporary files.
        with file:
            result = write(file)
            file.flush()
            os.fsync(file.fileno())
        with guard():
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return result


def sync_folder(path: Path) -> None:
    """Makes durable which files a folder has, under which names."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_temporary(folder: Path, name: str) -> None:
    """Removes what a killed writer of a file of this name (a glob pattern) left behind."""
    for path in folder.glob(f".{name}." + "[0-9a-f]" * 8):
        path.unlink(missing_ok=True)
