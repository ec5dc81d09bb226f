"""Taking a rig away: its processes, links, namespaces and folder, found by their names, however far it was built."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.cluster import names, network
from benchmarks.cluster.errors import RigError

_LIMIT_S = 10.0
_POLL_S = 0.02


class Leftovers(NamedTuple):
    """What there is of a rig, or of several.

    Attributes:
        processes: inside the namespaces.
        links: the host's ends, and the bridge.
        namespaces: by name.
        folders: with Ray's logs and sockets, and the token.
    """

    processes: list[int]
    links: list[str]
    namespaces: list[str]
    folders: list[Path]


def rigs() -> set[str]:
    """The ids of all rigs of which there is anything.

    Raises:
        RigError: namespaces cannot be listed.
    """
    found = {names.rig_of_namespace(name) for name in network.namespaces()}
    found |= {names.rig_of_link(name) for name in network.interfaces()}
    found |= {rig for rig, _ in names.folders().values()}
    return {rig for rig in found if rig is not None}


def find(among: Container[str]) -> Leftovers:
    """What there is of some rigs, given by their ids.

    Raises:
        RigError: namespaces cannot be listed.
    """
    namespaces = [name for name in network.namespaces() if names.rig_of_namespace(name) in among]
    return Leftovers(
        processes=[pid for name in namespaces for pid in _inside(name)],
        links=[name for name in network.interfaces() if names.rig_of_link(name) in among],
        namespaces=namespaces,
        folders=[path for path, (rig, _) in names.folders().items() if rig in among],
    )


def remove(found: Leftovers) -> None:
    """Takes it away. What somebody else took away meanwhile is no error.

    Raises:
        RigError: something is still there.
    """
    for name in found.namespaces:
        kill_all(name)
    # An interface takes the other end of its link along.
    for name in found.links:
        _unless_gone(partial(network.ip, "link", "del", name), network.interface_path(name))
    for name in found.namespaces:
        _unless_gone(partial(network.ip, "netns", "del", name), network.namespace_path(name))
    # The last: as long as it is there, a sweep can tell that the rig is somebody's.
    for folder in found.folders:
        _unless_gone(partial(shutil.rmtree, folder), folder)


def sweep() -> Leftovers:
    """Takes away the rigs whose process has ended without doing so, as after `kill -9`; what that was.

    Raises:
        RigUnavailableError: not root, or no iproute2.
        RigError: something is still there.
    """
    network.check_available()
    seen = rigs()
    # Looked at afterwards: a rig makes its folder first, so that one seen while it was being built has its folder by now.
    living = {rig for rig, owner in names.folders().values() if owner.lives()}
    dead = find(seen - living)
    remove(dead)
    return dead


def kill_all(namespace: str) -> None:
    """Kills every process inside a namespace, until there is none.

    Raises:
        RigError: some are left after ten seconds.
    """
    deadline = time.monotonic() + _LIMIT_S
    while pids := _inside(namespace):
        if time.monotonic() > deadline:
            raise RigError(f"processes {', '.join(map(str, pids))} of {namespace} have not ended in {_LIMIT_S:.0f} s")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _inside(namespace: str) -> list[int]:
    try:
        return network.processes(namespace)
    except RigError:
        if namespace in network.namespaces():
            raise
        return []


def _unless_gone(take_away: Callable[[], object], path: Path) -> None:
    try:
        take_away()
    except (RigError, OSError) as error:
        if path.exists():
            raise RigError(f"a rig could not be taken away: {error}") from error
