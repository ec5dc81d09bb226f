"""A node of a rig: a network namespace with an address, a link, and the processes inside."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cluster import leftovers, network, ray_start
from benchmarks.cluster.errors import RigError
from benchmarks.cluster.network import Link

OBJECT_STORE_BYTES = 100 * 2**20
_START_LIMIT_S = 120.0
_KILL_LIMIT_S = 10.0


class Node:
    """One of a rig's nodes.

    Attributes:
        namespace: its network namespace's name.
        address: its address, which the other nodes and the host reach.
        link: to the other nodes.
        folder: for its Ray's sockets and logs; the node may write there what it likes.
    """

    def __init__(self, *, namespace: str, address: str, link: Link, folder: Path, token: Path) -> None:
        self.namespace = namespace
        self.address = address
        self.link = link
        self.folder = folder
        self._token = token
        self._started: list[subprocess.Popen[Any]] = []

    @property
    def ray_address(self) -> str:
        """Where a program joins the cluster, if this node is its head."""
        return f"{self.address}:{ray_start.GCS_PORT}"

    def run(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Starts a process inside the node. It ends with the rig at the latest.

        It gets the cluster's token, and no Ctrl-C of a terminal. /sys is the node's own, without control groups.

        Args:
            command: program and arguments.
            environment: beside what a program needs to join the cluster.
            options: of `subprocess.Popen`.
        """
        process: subprocess.Popen[Any] = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            env=ray_start.environment(self._token) | dict(environment or {}),
            start_new_session=True,
            **options,
        )
        self._started.append(process)
        return process

    def start_ray(
        self,
        *,
        head: Node | None = None,
        cpus: int = 1,
        object_store_bytes: int = OBJECT_STORE_BYTES,
        system_config: Mapping[str, object] | None = None,
    ) -> None:
        """Starts Ray here and returns when the node has joined.

        Args:
            head: the cluster's head; None: this node becomes it.
            cpus: that Ray may hand out.
            object_store_bytes: that Ray's object store holds before it spills; 75 MiB at least.
            system_config: Ray's internal settings, such as `health_check_timeout_ms`; only for the head.

        Raises:
            RigError: Ray did not start, with what it said.
        """
        self.begin_ray(head=head, cpus=cpus, object_store_bytes=object_store_bytes, system_config=system_config)()

    def begin_ray(
        self,
        *,
        head: Node | None = None,
        cpus: int = 1,
        object_store_bytes: int = OBJECT_STORE_BYTES,
        system_config: Mapping[str, object] | None = None,
    ) -> Callable[[], None]:
        """Begins what `start_ray` does, so that several nodes can start side by side; what it returns waits for the end."""
        command = ray_start.command(
            address=self.address,
            head_address=head.ray_address if head else None,
            folder=self.folder,
            cpus=cpus,
            object_store_bytes=object_store_bytes,
            system_config=system_config or {},
        )
        # Into a file: what Ray leaves running would keep a pipe open.
        said = self.folder / "ray_start.txt"
        with said.open("wb") as out:
            process = self.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder)
        return partial(self._started_ray, process, said)

    def _started_ray(self, process: subprocess.Popen[Any], said: Path) -> None:
        try:
            code = process.wait(_START_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise RigError(f"Ray on {self.address} has not started in {_START_LIMIT_S:.0f} s: {_tail(said)}") from None
        if code:
            raise RigError(f"Ray on {self.address} did not start: {_tail(said)}")

    def kill_raylet(self) -> float:
        """Kills the node's raylet with SIGKILL, which the other processes of its Ray survive until they notice.

        Returns:
            When it was told, by `time.monotonic`, in seconds. On return it has ended.

        Raises:
            RigError: there is none, or it has not ended in ten seconds.
        """
        raylets = self.raylets()
        if not raylets:
            raise RigError(f"node {self.address} has no raylet")
        handles = [os.pidfd_open(pid) for pid in raylets]
        try:
            told = time.monotonic()
            for handle in handles:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            for pid, handle in zip(raylets, handles, strict=True):
                if not select.select([handle], [], [], _KILL_LIMIT_S)[0]:
                    raise RigError(f"raylet {pid} has not ended in {_KILL_LIMIT_S:.0f} s")
        finally:
            for handle in handles:
                os.close(handle)
        return told

    def raylets(self) -> list[int]:
        """The node's raylet, if there is one."""
        return [pid for pid in self.processes() if _name(pid) == "raylet"]

    def processes(self) -> list[int]:
        """The processes inside, with those that they have started."""
        return network.processes(self.namespace)

    def kill(self) -> None:
        """Kills everything inside, as if the machine were switched off; the link stays.

        Raises:
            RigError: a process has not ended in ten seconds.
        """
        for process in self._started:
            # One that has just been started may not be inside yet.
            process.kill()
        leftovers.kill_all(self.namespace)
        for process in self._started:
            # Closes its pipes, of which one may hold what it never read.
            with suppress(BrokenPipeError):
                process.__exit__(None, None, None)
        self._started.clear()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-15:]) or "it said nothing"
