"""The service's TLS: its certificate and key, and the authority whose clients it trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from shardsgd.errors import InputError


def server_credentials(
    certificate: Path | None, key: Path | None, client_ca: Path | None = None
) -> grpc.ServerCredentials | None:
    """What the service proves itself with, and what it asks of clients.

    The files are looked at again with every new connection, so that a renewed certificate needs no restart. What cannot be used
    then, such as a new certificate whose key is not there yet, is passed over for what was used before.

    Args:
        certificate: PEM file, with the chain up to the authority that clients know; None: no TLS.
        key: PEM file of its private key, without a password.
        client_ca: PEM file of the authorities whose client certificates are trusted; every client must show one. None: no
            certificate is asked for.

    Returns:
        For one `grpc.aio.Server.add_secure_port`; None: no TLS.

    Raises:
        InputError: a file is missing, cannot be used, or does not belong to the others.
    """
    if certificate is None or key is None:
        if certificate or key or client_ca:
            raise InputError("TLS needs both a certificate (--tls-cert) and its key (--tls-key)")
        return None
    files = _Files(certificate, key, client_ca)
    # None for "as before" is documented, and missing in the stubs.
    return grpc.dynamic_ssl_server_credentials(files.read(), files.renewed, client_ca is not None)  # type: ignore[arg-type]


class _Files:
    """The files of one certificate. Called from gRPC's threads, one connection at a time or several."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._used: tuple[bytes, bytes, bytes | None] | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        contents = self._contents()
        self._check()
        self._used = contents
        certificate, key, client_ca = contents
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=client_ca)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            return None if self._contents() == self._used else self.read()
        except InputError:
            return None

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        client_ca = _bytes_of(self._client_ca) if self._client_ca else None
        return _bytes_of(self._certificate), _bytes_of(self._key), client_ca

    def _check(self) -> None:
        """OpenSSL's own judgement; gRPC's is that no client can connect."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=self._no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise InputError(f"{self._key} is not the key of {self._certificate} (--tls-key, --tls-cert)") from None
            raise InputError(
                f"{self._certificate}, {self._key}: not a certificate and its private key in PEM (--tls-cert, --tls-key)"
            ) from None
        try:
            if self._client_ca:
                context.load_verify_locations(self._client_ca)
        except ssl.SSLError:
            raise InputError(f"{self._client_ca}: no certificates in PEM (--tls-client-ca)") from None

    def _no_password(self) -> str:
        # Without it OpenSSL would ask on the terminal.
        raise InputError(f"{self._key}: the key is locked with a password; the service needs it without (--tls-key)")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
