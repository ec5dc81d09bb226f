"""TLS and mTLS with real certificates and real handshakes."""

import asyncio
import logging
import os
import shutil
import subprocess

import grpc
import pytest
from certificates import make_authority, make_certificate, openssl

from shardsgd.coordinator.service.authentication import Authentication
from shardsgd.coordinator.service.credentials import server_credentials
from shardsgd.coordinator.service.problems import ServiceError
from shardsgd.errors import InputError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="makes its certificates with the openssl command"
)


@pytest.fixture(autouse=True)
def grpc_log(caplog):
    """What goes wrong in gRPC's own threads shows nowhere else."""
    with caplog.at_level(logging.INFO):
        yield
    assert not [record for record in caplog.records if record.name.startswith(("grpc", "asyncio"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An authority with a server's and clients' certificates, and another authority with one client."""
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "ca")
    make_authority(folder, "elsewhere")
    for name in ("server", "renewed", "ada"):
        make_certificate(folder, "ca", name)
    make_certificate(folder, "ca", "nameless", "/O=nobody")
    make_certificate(folder, "ca", "odd", "/CN=a da")
    make_certificate(folder, "elsewhere", "eve", "/CN=ada")
    openssl("ec", "-in", folder / "server.key", "-out", folder / "locked.key", "-aes128", "-passout", "pass:secret")
    (folder / "empty").write_bytes(b"")
    (folder / "garbage").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return folder


async def whoami(request, context):
    """Who the service takes the caller for."""
    names = list(context.auth_context().get("x509_common_name", ()))
    try:
        caller = Authentication(certificates=True).caller(context.invocation_metadata(), names)
    except ServiceError as error:
        return error.reason.encode()
    return caller.owner.encode()


async def serve(credentials, talk):
    """What `talk` returns of a server with these credentials; it is given the address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test", {"WhoAmI": grpc.unary_unary_rpc_method_handler(whoami)})]
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        return await talk(f"localhost:{port}")
    finally:
        await server.stop(None)


async def ask(address, made, client=None, authority="ca"):
    """The answer, or the code of the error and what it says."""
    root = (made / f"{authority}.pem").read_bytes()
    key, certificate = ((made / f"{client}.{end}").read_bytes() for end in ("key", "pem")) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(root, key, certificate)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        try:
            return await channel.unary_unary("/test/WhoAmI")(b"", timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code().name


def answers(credentials, made, **asked):
    return asyncio.run(serve(credentials, lambda address: ask(address, made, **asked)))


def test_tls_serves_clients_that_trust_its_authority_and_no_others(made):
    async def talk(address):
        return [await ask(address, made, authority=authority) for authority in ("ca", "elsewhere")]

    credentials = server_credentials(made / "server.pem", made / "server.key")
    # Encrypted, and nobody in particular.
    assert asyncio.run(serve(credentials, talk)) == [b"UNAUTHENTICATED", "UNAVAILABLE"]


def test_plain_text_is_not_answered(made):
    async def talk(address):
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/test/WhoAmI")(b"", timeout=30)
            return caught.value.code()

    credentials = server_credentials(made / "server.pem", made / "server.key")
    assert asyncio.run(serve(credentials, talk)) is grpc.StatusCode.UNAVAILABLE


def test_a_clients_certificate_names_its_owner(made):
    credentials = server_credentials(made / "server.pem", made / "server.key", made / "ca.pem")
    assert answers(credentials, made, client="ada") == b"ada"


@pytest.mark.parametrize("client", [None, "eve"])
def test_a_client_without_a_trusted_certificate_does_not_get_through(made, client):
    credentials = server_credentials(made / "server.pem", made / "server.key", made / "ca.pem")
    assert answers(credentials, made, client=client) == "UNAVAILABLE"


@pytest.mark.parametrize("client", ["nameless", "odd"])
def test_a_trusted_certificate_without_an_owners_name_is_nobody(made, client):
    credentials = server_credentials(made / "server.pem", made / "server.key", made / "ca.pem")
    assert answers(credentials, made, client=client) == b"UNAUTHENTICATED"


def test_without_certificate_and_key_there_is_no_tls():
    assert server_credentials(None, None) is None


@pytest.mark.parametrize(
    ("certificate", "key", "client_ca", "words"),
    [
        ("server.pem", None, None, "--tls-key"),
        (None, "server.key", None, "--tls-cert"),
        (None, None, "ca.pem", "--tls-cert"),
        ("nothing", "server.key", None, "nothing: No such file"),
        ("server.pem", "nothing", None, "nothing: No such file"),
        ("server.pem", "server.key", "nothing", "nothing: No such file"),
        (".", "server.key", None, "Is a directory"),
        ("server.pem", "ada.key", None, r"ada.key is not the key of .*server.pem"),
        ("server.key", "server.pem", None, "not a certificate and its private key in PEM"),
        ("empty", "server.key", None, "not a certificate and its private key in PEM"),
        ("garbage", "server.key", None, "not a certificate and its private key in PEM"),
        ("server.pem", "locked.key", None, "locked with a password"),
        ("server.pem", "server.key", "empty", "no certificates in PEM"),
        ("server.pem", "server.key", "ca.key", "no certificates in PEM"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_words(made, certificate, key, client_ca, words):
    with pytest.raises(InputError, match=words):
        server_credentials(*(name and made / name for name in (certificate, key, client_ca)))


def served_name(made, address):
    """The name in the certificate that a server shows, by a client that is not ours."""
    port = address.rpartition(":")[2]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2", "-CAfile", made / "ca.pem"]
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    return (
        next(line for line in shown.stdout.decode(errors="replace").splitlines() if line.startswith("subject"))
        .rpartition("CN")[2]
        .strip(" =")
    )


def test_a_renewed_certificate_is_used_once_its_key_is_there_too(made, tmp_path):
    def put(name, *ends):
        for end in ends:
            shutil.copy(made / f"{name}.{end}", tmp_path / f"new.{end}")
            os.replace(tmp_path / f"new.{end}", tmp_path / f"used.{end}")

    async def talk(address):
        seen = []
        for ends in ((), ("pem",), ("key",)):
            put("renewed", *ends)
            seen.append(await asyncio.to_thread(served_name, made, address))
            assert await ask(address, made) == b"UNAUTHENTICATED"  # it still answers
        (tmp_path / "used.key").unlink()
        seen.append(await asyncio.to_thread(served_name, made, address))
        return seen

    put("server", "pem", "key")
    credentials = server_credentials(tmp_path / "used.pem", tmp_path / "used.key")
    assert asyncio.run(serve(credentials, talk)) == ["server", "server", "renewed", "renewed"]
