"""Where a service is and how it may be spoken to: checked before anything is sent. Imports no gRPC."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from shardsgd.errors import InputError

DEFAULT_ADDRESS = "127.0.0.1:50051"
_ADDRESS = re.compile(r"(?:(?P<host>[^\[\]:/\s]+)|\[(?P<ipv6>[0-9a-fA-F:.%]+)\]):(?P<port>[0-9]{1,5})")
_TOKEN_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True)
class Endpoint:
    """A service's address and what its connection needs.

    Connections to this machine are plain unless a TLS file is given; all others speak TLS unless `insecure` is set.

    Attributes:
        address: HOST:PORT, [IPV6]:PORT or unix:PATH.
        token: sent with every request; never shown.
        tls_ca: PEM file of the authorities that may have signed the service's certificate; None: the system's.
        tls_cert: PEM file of the client's own certificate, for services that ask for one (mTLS).
        tls_key: PEM file of its key.
        insecure: speak, and send the token, in plain text to whatever host it is.

    Raises:
        InputError: the address, the token or a file cannot be used.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        _host(self.address)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("a client certificate and its key belong together: tls_cert and tls_key, both or neither")
        if self.insecure and self._has_tls_files:
            raise InputError("insecure means no TLS: leave out either it or the TLS files")
        if self.token is not None and not (self.token and set(self.token) <= _TOKEN_CHARACTERS):
            raise InputError("the token is empty or has characters that no token has")
        if self._has_tls_files:
            _check_tls_files(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def is_here(self) -> bool:
        """Whether the service is on this machine."""
        host = _host(self.address)
        return host is None or is_loopback(host)

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self._has_tls_files or not (self.is_here or self.insecure)

    @property
    def _has_tls_files(self) -> bool:
        return self.tls_ca is not None or self.tls_cert is not None


def read_token(path: Path) -> str:
    """The token in a file: its only line.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a token file: {error}") from None
    if len(words) != 1:
        raise InputError(f"{path}: expected one line with a token and nothing else")
    return words[0]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(address: str) -> str | None:
    """The host of an address; None for a Unix socket."""
    if address.startswith("unix:") and len(address) > len("unix:"):
        return None
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 2**16:
        raise InputError(f"{address}: not the address of a service; expected HOST:PORT, such as {DEFAULT_ADDRESS}")
    return found["host"] or found["ipv6"]


def _check_tls_files(ca: Path | None, cert: Path | None, key: Path | None) -> None:
    """Says what is wrong with the files; gRPC would only say that no handshake comes about."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in (ca, cert, key):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        if ca is not None:
            context.load_verify_locations(ca)
    except ssl.SSLError:
        raise InputError(f"{ca}: holds no certificates in PEM (tls_ca)") from None
    try:
        if cert is not None and key is not None:
            # A key under a password would be asked for on the terminal.
            context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        what = "do not belong together" if mismatch else "are not a certificate and its key"
        raise InputError(f"{cert} and {key} {what}, in PEM and without a password (tls_cert, tls_key)") from None
