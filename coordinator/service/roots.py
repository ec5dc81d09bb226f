"""Data on the service's own machine: only what lies under its data roots.

A path is first looked at as it is written: if it does not lead to a root, the disk is not touched at all, so that neither the
answer nor the time it takes tells what exists elsewhere. Then links are followed, and it must still be under a root.

What this does not do: between this look and the moment the file is opened, somebody who may write under a root could put a
link in its place. Callers of the service cannot write there; whoever can, can place data there anyway. Readers of a folder
follow links in it. A hard link is the file itself, wherever its other names are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.errors import FieldProblem, InputError
from shardsgd.spec_problems import show

_FIELD = "data.source"


def checked_roots(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Data roots as the operator gave them, absolute, as they are written: a link stays one, and may lead elsewhere later.

    Raises:
        InputError: some are not folders; all such are named.
    """
    wrong = [str(folder) for folder in folders if not folder.is_dir()]
    if wrong:
        raise InputError(f"not a folder: {', '.join(wrong)} (data roots)")
    return tuple(Path(os.path.normpath(folder.absolute())) for folder in folders)


def allowed(source: str, roots: Sequence[Path]) -> Path:
    """The file or folder that a caller means, if it lies under a root.

    Args:
        source: absolute, or relative to a root: the first that has it counts. `~` is an ordinary character.
        roots: absolute folders.

    Returns:
        Its absolute path without links and `..`.

    Raises:
        ServiceError: DATA_NOT_ALLOWED, in the same words whether it is elsewhere, nowhere, a device, or cannot be reached.
    """
    real_roots = [os.path.realpath(root) for root in roots]
    for root in roots:
        for base in dict.fromkeys((str(root), os.path.realpath(root))):
            path = os.path.join(base, source)
            if source and _is_under(os.path.normpath(path), [base]) and (real := _resolved(path, real_roots)):
                return Path(real)
    accepted = (
        "must be a file or folder under one of the service's data roots"
        if roots
        else "this service reads no files of its own machine: upload the dataset"
    )
    problem = FieldProblem(_FIELD, show(source), accepted)
    raise ServiceError(Reason.DATA_NOT_ALLOWED, str(problem), fields=(problem,))


def _resolved(path: str, real_roots: Sequence[str]) -> str | None:
    """Where a path leads, if that is a regular file or a folder under a root."""
    try:
        real = os.path.realpath(path, strict=True)
        kind = os.lstat(real).st_mode if _is_under(real, real_roots) else 0
    except (OSError, ValueError):  # ValueError: a NUL, or what no file name can hold
        return None
    return real if stat.S_ISREG(kind) or stat.S_ISDIR(kind) else None


def _is_under(path: str, folders: Sequence[str]) -> bool:
    return any(os.path.commonpath([path, folder]) == os.path.normpath(folder) for folder in folders)
