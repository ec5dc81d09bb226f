"""Names of what a rig makes, from which anybody can tell whose it is and whether its process still lives.

A rig has an id of six hexadecimal digits. With 1a2b3c: the bridge `sgd-1a2b3c`, the host's end of node 0's link
`sgd-1a2b3c-0`, node 0's namespace `sgd-rig-1a2b3c-0`, the folder `/tmp/sgd-rig-1a2b3c-PID-START` with the process that
owns the rig, in hexadecimal. They are short: an interface's name has 15 characters at most, and the kernel cuts paths of Unix
sockets, which Ray puts up to 64 bytes below a node's folder, at 107 bytes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

# Resolved: it is compared with what the kernel says of open files.
ROOT = Path("/tmp").resolve()
_FOLDER = re.compile(r"sgd-rig-([0-9a-f]{6})-([0-9a-f]+)-([0-9a-f]+)")
_LINK = re.compile(r"sgd-([0-9a-f]{6})(-\d+)?")
_NAMESPACE = re.compile(r"sgd-rig-([0-9a-f]{6})-\d+")


class Owner(NamedTuple):
    """A process: the kernel may use its number again, but not with the same start time.

    Attributes:
        pid: its number.
        started: clock ticks since the machine started.
    """

    pid: int
    started: int

    def lives(self) -> bool:
        """Whether it is there and has not ended."""
        return _started(self.pid) == self.started


def this_process() -> Owner:
    """The process that asks."""
    started = _started(os.getpid())
    assert started is not None
    return Owner(os.getpid(), started)


def bridge(rig: str) -> str:
    """The bridge's name."""
    return f"sgd-{rig}"


def link(rig: str, index: int) -> str:
    """The name of the host's end of a node's link."""
    return f"sgd-{rig}-{index}"


def namespace(rig: str, index: int) -> str:
    """A node's namespace."""
    return f"sgd-rig-{rig}-{index}"


def folder(rig: str, owner: Owner) -> Path:
    """The rig's folder."""
    return ROOT / f"sgd-rig-{rig}-{owner.pid:x}-{owner.started:x}"


def rig_of_link(name: str) -> str | None:
    """The id of the rig that an interface of the host belongs to, if it is one's."""
    return found[1] if (found := _LINK.fullmatch(name)) else None


def rig_of_namespace(name: str) -> str | None:
    """The id of the rig that a namespace belongs to, if it is one's."""
    return found[1] if (found := _NAMESPACE.fullmatch(name)) else None


def folders() -> dict[Path, tuple[str, Owner]]:
    """The folders of all rigs, with the rig's id and the process that owns it."""
    found = {path: _FOLDER.fullmatch(path.name) for path in ROOT.glob("sgd-rig-*")}
    return {path: (parts[1], Owner(int(parts[2], 16), int(parts[3], 16))) for path, parts in found.items() if parts}


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])
