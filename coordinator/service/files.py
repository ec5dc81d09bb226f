"""Files of jobs: what a download reads and a deletion removes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def sha256_of(file: int) -> str:
    """SHA-256 of an open file's bytes, in hexadecimal; its offset is left at the end."""
    digest = hashlib.sha256()
    os.lseek(file, 0, os.SEEK_SET)
    while chunk := os.read(file, 2**20):
        digest.update(chunk)
    return digest.hexdigest()


def remove_folder(folder: Path) -> None:
    """Removes a job's files; nothing if there are none."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep_folders(folder: Path, is_known: Callable[[str], bool]) -> None:
    """Removes folders of jobs that nobody knows: of those whose deletion a killed service did not finish."""
    for path in folder.iterdir():
        if not is_known(path.name):
            remove_folder(path)
