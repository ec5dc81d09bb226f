"""Labels that stand in a file of their own, beside the features."""

from __future__ import annotations

from pathlib import Path

from shardsgd.errors import DataError
from shardsgd.spec_problems import show


def file_beside(source: Path, name: str) -> Path | None:
    """The file called `name` in the folder of `source`, or None.

    Only plain names count: a path could lead out of the folders that a service confines its callers to.
    """
    path = source.parent / name
    return path if Path(name).name == name and path.is_file() else None


def label_file(source: Path, name: str) -> Path:
    """The file called `name` in the folder of `source`.

    Raises:
        DataError: there is none.
    """
    path = file_beside(source, name)
    if path is None:
        raise DataError(
            f"data.label = {show(name)}: no such file beside {source}; accepted: the name of a file in that folder"
        )
    return path
