"""Where a service may listen: in the open only with TLS, and only if it asks who calls."""

from __future__ import annotations

import ipaddress
import socket

from shardsgd.errors import InputError

_ANYWAY = "--insecure does it anyway"


def check_address(host: str, *, tls: bool, authenticated: bool, insecure: bool) -> None:
    """Refuses to be reached from other machines without what that takes.

    Args:
        host: a name or an address, without a port; empty: all of the machine's.
        tls: whether connections are encrypted.
        authenticated: whether callers need a token or a certificate. Without, whoever can connect is the administrator.
        insecure: whether the operator spelled out that it shall be so: behind a proxy, say.

    Raises:
        InputError: it is refused, or `host` is not the name of any machine.
    """
    if insecure or is_loopback(host):
        return
    where = host or "every address of this machine"
    if not tls:
        seen = "tokens and jobs" if authenticated else "jobs"
        raise InputError(
            f"{where} can be reached from other machines, and without TLS everybody on the way reads {seen}: "
            f"give --tls-cert and --tls-key, or listen on 127.0.0.1; {_ANYWAY}"
        )
    if not authenticated:
        raise InputError(
            f"{where} can be reached from other machines, and whoever connects would be the administrator: "
            f"give --token-file or --tls-client-ca, or listen on 127.0.0.1; {_ANYWAY}"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect.

    Raises:
        InputError: `host` is not the name of any machine.
    """
    if not host:
        return False
    bare = host.removeprefix("[").removesuffix("]")
    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise InputError(f"{host}: not the name or address of a machine (--address)") from None
    return all(_is_loopback(ipaddress.ip_address(address.partition("%")[0])) for address in found)


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
