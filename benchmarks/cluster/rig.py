"""The rig itself: nodes on a bridge, there for the length of a `with` block."""

from __future__ import annotations

import ipaddress
import os
import secrets
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType

from benchmarks.cluster import ending, leftovers, names, network
from benchmarks.cluster.node import Node

_NODES_MOST = 99


class Rig:
    """Nodes, each in its own network namespace with its own address, joined by links of one rate.

    On entry, what killed rigs have left is swept away, and the nodes and links are made. On exit, by SIGTERM or Ctrl-C too, all
    processes inside, links, namespaces and the folder go. After `kill -9` that is done by the next rig, or by
    `python -m benchmarks.cluster sweep`. Rigs do not disturb each other.

    The host takes part by the bridge's address, `host_address`, over the other end of each node's link. There is no way from a
    node to any other network.

    Attributes:
        nodes: in order of their addresses.
        host_address: the host's.
        folder: 0700, with a folder for each node and Ray's token.
    """

    def __init__(self, nodes: int = 3, *, rate_mbit: float = 1000) -> None:
        """Makes nothing yet.

        Args:
            nodes: how many, 1 to 99.
            rate_mbit: of each link, each way, in 10⁶ bits a second.

        Raises:
            ValueError: there cannot be such a rig.
        """
        if not 1 <= nodes <= _NODES_MOST:
            raise ValueError(f"nodes = {nodes}: must be 1 to {_NODES_MOST}")
        if not rate_mbit >= 1:
            raise ValueError(f"rate_mbit = {rate_mbit}: must be 1 or more")
        self.nodes: list[Node] = []
        self.host_address = ""
        self.folder = Path()
        self._count = nodes
        self._rate_mbit = rate_mbit
        self._cleanup = ExitStack()

    def __enter__(self) -> Rig:
        """Makes everything.

        Raises:
            RigUnavailableError: this machine or this user cannot have a rig.
            RigError: it could not be made; nothing of it is left.
        """
        leftovers.sweep()
        rig = secrets.token_hex(3)
        with ExitStack() as cleanup:
            cleanup.enter_context(ending.orderly())
            cleanup.callback(self._take_away, rig)
            self._build(rig)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes everything away.

        Raises:
            RigError: something is still there.
        """
        self._cleanup.__exit__(kind, error, trace)

    def start_ray(self, *, cpus: int = 1, system_config: dict[str, object] | None = None) -> str:
        """Starts Ray on every node, the first being the head; the address at which a program joins.

        Args:
            cpus: of each node.
            system_config: Ray's internal settings.

        Raises:
            RigError: Ray did not start.
        """
        head, *others = self.nodes
        head.start_ray(cpus=cpus, system_config=system_config)
        for waits in [node.begin_ray(head=head, cpus=cpus) for node in others]:
            waits()
        return head.ray_address

    def _build(self, rig: str) -> None:
        self.folder = names.folder(rig, names.this_process())
        self.folder.mkdir(mode=0o700)
        token = self.folder / "token"
        with open(token, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(secrets.token_hex(32))
        namespaces = [names.namespace(rig, index) for index in range(self._count)]
        # First: it is what a user, root though, may not do in most containers, and that has an error of its own.
        for namespace in namespaces:
            network.make_namespace(namespace)
        hosts = islice(network.free_network().hosts(), self._count + 1)
        host, *addresses = [ipaddress.IPv4Interface((address, 24)) for address in hosts]
        network.make_bridge(names.bridge(rig), host)
        self.host_address = str(host.ip)
        for index, (namespace, address) in enumerate(zip(namespaces, addresses, strict=True)):
            link = network.make_link(
                names.link(rig, index),
                bridge=names.bridge(rig),
                namespace=namespace,
                address=address,
                rate_mbit=self._rate_mbit,
            )
            folder = self.folder / str(index)
            folder.mkdir()
            self.nodes.append(Node(namespace=namespace, address=str(address.ip), link=link, folder=folder, token=token))

    def _take_away(self, rig: str) -> None:
        with ending.uninterrupted():
            for node in self.nodes:
                node.kill()
            self.nodes.clear()
            leftovers.remove(leftovers.find({rig}))
