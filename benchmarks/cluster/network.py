"""Namespaces, the bridge and the links between them: iproute2's `ip` and `tc`, run one command at a time."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cluster.errors import RigError, RigUnavailableError

NODE_INTERFACE = "eth0"
_INTERFACES = Path("/sys/class/net")
# A token bucket lets this much through at once. Below what a link carries in 2 ms the kernel's clock would limit the rate, and
# below 32 KB the segments that TCP hands over would be cut up.
_BURST_S = 0.002
_LEAST_BURST_BYTES = 32 * 1024
_QUEUE_MS = 50


class Counters(NamedTuple):
    """Bytes of Ethernet frames that a link has carried since it was made, as the kernel counts them.

    Segments that TCP hands over together count their headers once, so what a wire would carry is up to 4 % more.

    Attributes:
        to_node: towards the node.
        from_node: from the node.
    """

    to_node: int
    from_node: int

    def __sub__(self, before: Counters) -> Counters:
        """What went by between two readings."""
        return Counters(self.to_node - before.to_node, self.from_node - before.from_node)


class Link(NamedTuple):
    """A node's link to the bridge.

    Attributes:
        interface: the host's end.
    """

    interface: str

    def cut(self) -> None:
        """As if the cable were pulled: frames are dropped, both ways, and no process is told."""
        ip("link", "set", self.interface, "down")

    def restore(self) -> None:
        """Puts the cable back."""
        ip("link", "set", self.interface, "up")

    def counters(self) -> Counters:
        """Bytes that the link has carried, both ways.

        Raises:
            FileNotFoundError: the rig has ended.
        """
        statistics = interface_path(self.interface) / "statistics"
        return Counters(
            int((statistics / "tx_bytes").read_text()),
            int((statistics / "rx_bytes").read_text()),
        )


def burst_bytes(rate_mbit: float) -> int:
    """What a link lets through at once, beyond its rate."""
    return max(_LEAST_BURST_BYTES, round(rate_mbit * 1e6 / 8 * _BURST_S))


def check_available() -> None:
    """Raises what tells why this machine or this user cannot have a rig.

    Raises:
        RigUnavailableError: not Linux, not root, or no iproute2.
    """
    if not Path("/proc/self/ns/net").exists():
        raise RigUnavailableError("a rig needs Linux: there are no network namespaces here")
    if os.geteuid() != 0:
        raise RigUnavailableError(f"a rig needs root, to make network namespaces; this is user {os.geteuid()}")
    if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
        raise RigUnavailableError(f"a rig needs iproute2; not found: {', '.join(missing)}")


def free_network() -> ipaddress.IPv4Network:
    """A private network of 256 addresses to which this machine has no route yet.

    Raises:
        RigError: there is none.
    """
    taken = [
        ipaddress.IPv4Network(route["dst"], strict=False)
        for route in query("route", "show", "table", "all")
        if route["dst"] != "default" and ":" not in route["dst"]
    ]
    # Not to be predicted: rigs that are built at the same time must not choose the same.
    chance = random.SystemRandom()
    for _ in range(1000):
        network = ipaddress.IPv4Network((f"10.{chance.randrange(256)}.{chance.randrange(256)}.0", 24))
        if not any(network.overlaps(other) for other in taken):
            return network
    raise RigError("a rig needs a network of its own, but this machine has routes to all of 10.0.0.0/8")


def make_bridge(name: str, address: ipaddress.IPv4Interface) -> None:
    """The switch that links end in, with an address by which the host takes part.

    Raises:
        RigError: it cannot be made.
    """
    ip("link", "add", name, "type", "bridge")
    _without_ipv6(name)
    ip("address", "add", str(address), "dev", name)
    ip("link", "set", name, "up")


def make_namespace(name: str) -> None:
    """A network of its own, with nothing but the loopback interface.

    Raises:
        RigUnavailableError: this user, root though, may not: in most containers.
        RigError: it cannot be made.
    """
    try:
        ip("netns", "add", name)
    except RigError as error:
        raise RigUnavailableError(f"a rig needs to make network namespaces: {error}") from error
    ip("-n", name, "link", "set", "lo", "up")


def make_link(
    interface: str, *, bridge: str, namespace: str, address: ipaddress.IPv4Interface, rate_mbit: float
) -> Link:
    """A link of a namespace to the bridge, with the same rate both ways.

    Args:
        interface: name of the host's end.
        bridge: where it ends.
        namespace: where it begins.
        address: of the namespace's end.
        rate_mbit: 10⁶ bits a second.

    Raises:
        RigError: it cannot be made.
    """
    ip("link", "add", interface, "type", "veth", "peer", NODE_INTERFACE, "netns", namespace)
    _without_ipv6(interface)
    _without_ipv6(NODE_INTERFACE, "-n", namespace)
    ip("-n", namespace, "address", "add", str(address), "dev", NODE_INTERFACE)
    shape = ["root", "tbf", "rate", f"{round(rate_mbit * 1e6)}bit", "burst", f"{burst_bytes(rate_mbit)}b"]
    shape += ["latency", f"{_QUEUE_MS}ms"]
    _call("tc", "qdisc", "add", "dev", interface, *shape)
    _call("tc", "-n", namespace, "qdisc", "add", "dev", NODE_INTERFACE, *shape)
    ip("link", "set", interface, "master", bridge, "up")
    ip("-n", namespace, "link", "set", NODE_INTERFACE, "up")
    return Link(interface)


def interface_path(name: str) -> Path:
    """Where the kernel shows an interface of the host."""
    return _INTERFACES / name


def namespace_path(name: str) -> Path:
    """Where `ip` keeps a namespace."""
    return Path("/run/netns") / name


def interfaces() -> list[str]:
    """The host's network interfaces."""
    return [path.name for path in _INTERFACES.iterdir()]


def namespaces() -> list[str]:
    """Those with a name."""
    return [found["name"] for found in query("netns", "list")]


def processes(namespace: str) -> list[int]:
    """The processes inside a namespace, those included that the rig did not start itself."""
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def query(*arguments: str) -> list[dict[str, Any]]:
    """What `ip` says, parsed.

    Raises:
        RigError: it failed.
    """
    said = ip("-j", *arguments)
    return json.loads(said) if said.strip() else []


def ip(*arguments: str) -> str:
    """Runs `ip`; what it printed.

    Raises:
        RigError: it failed.
    """
    return _call("ip", *arguments)


def _without_ipv6(interface: str, *where: str) -> None:
    """Without its addresses an interface says nothing by itself, so that an idle link counts nothing."""
    if Path("/proc/sys/net/ipv6").exists():
        ip(*where, "link", "set", interface, "addrgenmode", "none")


def _call(*command: str) -> str:
    # In a session of its own: Ctrl-C is for the rig, which lets what it has begun come to its end.
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise RigError(f"`{' '.join(command)}` failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
