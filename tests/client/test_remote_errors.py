"""What may go wrong between a client and its service, as errors with reasons, and what each command exits with."""

import pickle
import socket
import subprocess
from types import SimpleNamespace

import grpc
import pytest
from fake_service import FakeService, Fault, fake_service
from google.rpc import error_details_pb2, status_pb2

import shardsgd
from shardsgd import InputError, JobSpec, RefusedError, RemoteError, ServiceUnavailableError, SpecError, TransferError
from shardsgd.coordinator.service.problems import CATALOG, Reason, ServiceError
from shardsgd.coordinator.service.rich_errors import TRAILER
from shardsgd.errors import FieldProblem, RemoteSpecError
from shardsgd.remote_endpoint import Endpoint, read_token
from shardsgd.remote_errors import error_of
from shardsgd.remote_patience import Patience


class Failed(grpc.RpcError):
    """A call that has failed, as gRPC raises it."""

    def __init__(self, code, details="it says so", trailers=()):
        self.code, self.details = lambda: code, lambda: details
        self.trailing_metadata = lambda: [SimpleNamespace(key=key, value=value) for key, value in trailers]


def met(service_error):
    """What the client makes of a refusal that went over the wire."""
    with fake_service(FakeService(faults=[Fault("GetServerInfo", error=service_error)])) as (_, address):
        with shardsgd.Client(address) as client, pytest.raises(RemoteError) as caught:
            client.server_info()
        return caught.value


# gRPC tries again what is UNAVAILABLE, which here is refused once.
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.SHUTTING_DOWN])
def test_every_reason_of_the_catalog_arrives_with_its_code_and_facts(reason):
    error = met(ServiceError(reason, "in words, Σ", metadata={"limit": "5"}, retry_after_s=1.5))
    code = CATALOG[reason].code
    assert (error.reason, error.code, error.metadata, error.retry_after_s) == (reason, code.name, {"limit": "5"}, 1.5)
    if code is not grpc.StatusCode.UNIMPLEMENTED:
        assert str(error) == "in words, Σ"
    is_ours = code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert isinstance(error, RefusedError) == (not is_ours and reason is not Reason.CHECKSUM_MISMATCH)
    assert isinstance(error, TransferError) == (reason is Reason.CHECKSUM_MISMATCH)
    assert error.exit_code == (2 if isinstance(error, InputError) else 1)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_code_without_a_reason_is_an_error_that_names_the_service(code):
    error = error_of(Failed(code), "host:1")
    assert (error.reason, error.code) == ("", code.name)
    refused = "INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED UNAUTHENTICATED RESOURCE_EXHAUSTED"
    refused += " FAILED_PRECONDITION OUT_OF_RANGE UNIMPLEMENTED"
    assert isinstance(error, RefusedError) == (code.name in refused.split())
    assert isinstance(error, ServiceUnavailableError) == (code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"))
    if not isinstance(error, RefusedError):
        assert str(error).startswith("host:1: ")


def test_a_refused_spec_lists_every_wrong_field_as_a_local_one_does():
    with pytest.raises(SpecError) as local:
        JobSpec(data={"source": "iris"}, workers={"count": 0}, batch={"size": "x (given: 3)"})
    error = met(ServiceError(Reason.INVALID_SPEC, str(local.value), fields=local.value.problems))
    assert isinstance(error, SpecError)
    assert error.problems == error.fields == local.value.problems
    assert str(error) == str(local.value)


def test_fields_that_had_no_room_are_counted():
    fields = tuple(FieldProblem(f"data.f{number}", "v" * 50, "accepted " * 20) for number in range(100))
    error = met(ServiceError(Reason.INVALID_SPEC, "many", fields=fields))
    assert isinstance(error, RemoteSpecError)
    assert 10 < len(error.problems) < 100
    assert str(error).endswith(f"… and {100 - len(error.problems)} more")


def test_a_request_that_is_wrong_as_a_whole_has_no_fields():
    error = met(ServiceError(Reason.INVALID_ARGUMENT, "not a message"))
    assert (str(error), error.fields) == ("not a message", ())


def foreign():
    """A status of another service that uses the same messages."""
    status = status_pb2.Status(code=5, message="gone")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_SPEC", domain="example.org"))
    return status.SerializeToString()


@pytest.mark.parametrize("trailer", [b"\xff garbage", b"", foreign()])
def test_details_of_other_services_are_not_believed(trailer):
    error = error_of(Failed(grpc.StatusCode.NOT_FOUND, "gone", [(TRAILER, trailer), ("other", "text")]))
    assert (type(error), str(error), error.reason) == (RefusedError, "gone", "")


@pytest.mark.parametrize(
    "error",
    [
        kind("words", "REASON", "CODE", (FieldProblem("a.b", "1", "2"),), {"x": "y"}, 2.5)
        for kind in (RemoteError, RefusedError, RemoteSpecError, ServiceUnavailableError, TransferError)
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_trip_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_where_nothing_listens_it_says_so():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with shardsgd.Client(address) as client, pytest.raises(ServiceUnavailableError) as caught:
            client.server_info()
    assert str(caught.value) == f"{address}: the service cannot be reached: nothing listens there (connection refused)"


def test_a_host_that_does_not_exist_is_called_so():
    with (
        shardsgd.Client("nowhere.invalid:1", insecure=True) as client,
        pytest.raises(ServiceUnavailableError, match=r"nowhere.invalid:1: .* there is no host of that name"),
    ):
        client.server_info()


def test_a_service_that_never_answers_costs_no_more_than_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with shardsgd.Client(address, timeout_s=0.2) as client, pytest.raises(ServiceUnavailableError) as caught:
            client.server_info()
    assert (caught.value.code, "did not answer in time" in str(caught.value)) == ("DEADLINE_EXCEEDED", True)


def openssl(*arguments, folder):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and certificates of it for a service on 127.0.0.1 and for a client; and another CA."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", folder=folder
        )
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", folder=folder)
        (folder / f"{name}.cnf").write_text("subjectAltName=IP:127.0.0.1")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", f"{name}.cnf"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem", folder=folder)
    return folder


@pytest.fixture(scope="module")
def behind_tls(certificates):
    """A service that asks for a certificate."""
    pair = [((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())]
    ca = (certificates / "ca.pem").read_bytes()
    with fake_service(credentials=grpc.ssl_server_credentials(pair, ca, require_client_auth=True)) as (_, address):
        yield address


def mutual(folder):
    return {"tls_cert": folder / "client.pem", "tls_key": folder / "client.key"}


def test_both_ends_show_certificates(behind_tls, certificates):
    with shardsgd.Client(behind_tls, tls_ca=certificates / "ca.pem", **mutual(certificates), token="t0ken") as client:
        assert client.server_info().version == "9.9"


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (lambda folder: {"tls_ca": folder / "other.pem"} | mutual(folder), "not signed by an authority trusted here"),
        (lambda folder: {"tls_ca": folder / "ca.pem"}, "cannot be reached"),
        (lambda folder: {}, "cannot be reached"),
    ],
    ids=["another CA", "no certificate of its own", "plain text"],
)
def test_a_wrong_way_to_speak_is_told(behind_tls, certificates, given, cause):
    with (
        shardsgd.Client(behind_tls, **given(certificates)) as client,
        pytest.raises(ServiceUnavailableError, match=cause),
    ):
        client.server_info()


def test_tls_to_a_service_in_plain_text_is_told(certificates):
    with (
        fake_service() as (_, address),
        shardsgd.Client(address, tls_ca=certificates / "ca.pem") as client,
        pytest.raises(ServiceUnavailableError, match="it does not speak TLS there"),
    ):
        client.server_info()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":1",
        "host:0",
        "host:65536",
        "host:x",
        "::1:5",
        "[::1]",
        "[]:1",
        "a b:1",
        "http://a:1",
        "unix:",
        "host:1 ",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="expected HOST:PORT"):
        shardsgd.Client(address)


@pytest.mark.parametrize(
    ("address", "tls"),
    [
        ("127.0.0.1:5", False),
        ("127.8.8.8:5", False),
        ("[::1]:5", False),
        ("localhost:5", False),
        ("unix:/tmp/socket", False),
        ("10.0.0.1:5", True),
        ("[2001:db8::1]:5", True),
        ("example.org:443", True),
        ("localhost.example.org:443", True),
    ],
)
def test_plain_text_never_leaves_the_machine_unless_told(address, tls, certificates):
    assert Endpoint(address).tls is tls
    assert Endpoint(address, insecure=True).tls is False
    assert Endpoint(address, tls_ca=certificates / "ca.pem").tls is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tls_ca": "missing.pem"}, "missing.pem: cannot be read: No such file"),
        ({"tls_ca": "server.key"}, "holds no certificates"),
        ({"tls_cert": "client.pem"}, "belong together"),
        ({"tls_cert": "client.pem", "tls_key": "server.key"}, "do not belong together"),
        ({"tls_cert": "client.key", "tls_key": "client.key"}, "are not a certificate and its key"),
        ({"tls_ca": "ca.pem", "insecure": True}, "insecure means no TLS"),
        ({"token": ""}, "the token is empty"),
        ({"token": "two words"}, "characters that no token has"),
        ({"token": "line\n"}, "characters that no token has"),
        ({"timeout_s": 0}, "must be more than 0"),
        ({"patience_s": -1}, "at least 0"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(certificates, arguments, message):
    files = {name: certificates / value for name, value in arguments.items() if name.startswith("tls")}
    with pytest.raises(InputError, match=message):
        shardsgd.Client("127.0.0.1:1", **arguments | files)


def test_a_token_is_never_shown():
    endpoint = Endpoint("127.0.0.1:1", "s3cret-token")
    client = shardsgd.Client("127.0.0.1:1", token="s3cret-token")
    assert "s3cret" not in f"{endpoint!r} {endpoint} {client!r} {client.job('x')!r}"
    with pytest.raises(InputError) as caught:
        shardsgd.Client("127.0.0.1:1", token="s3cret token")
    assert "s3cret" not in str(caught.value)


def test_a_token_file_holds_one_line(tmp_path):
    path = tmp_path / "token"
    path.write_text("t0ken\n")
    assert read_token(path) == "t0ken"
    for wrong in ("", "one two", "one\ntwo\n", "ä"):
        path.write_text(wrong)
        with pytest.raises(InputError, match=str(path)) as caught:
            read_token(path)
        assert not wrong or wrong not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_token(tmp_path / "missing")


class Waits:
    """A clock that only waiting moves."""

    def __init__(self, limit_s, drawn=1.0):
        self.now, self.slept = 0.0, []
        self.patience = Patience(limit_s, lambda: self.now, self._sleep, lambda: drawn)

    def _sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


UNAVAILABLE = ServiceUnavailableError("gone")


def test_waits_grow_to_a_bound_and_end():
    waits = Waits(20.0)
    for _ in range(8):
        waits.patience.after(UNAVAILABLE)
    with pytest.raises(ServiceUnavailableError):
        waits.patience.after(UNAVAILABLE)
    assert waits.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert waits.now <= 20.0


def test_a_wait_is_drawn_from_all_of_its_bound():
    low, high = Waits(20.0, drawn=0.0), Waits(20.0, drawn=0.5)
    for _ in range(3):
        low.patience.after(UNAVAILABLE)
        high.patience.after(UNAVAILABLE)
    assert low.slept == [0, 0, 0]
    assert high.slept == pytest.approx([0.05, 0.1, 0.2])


def test_what_goes_well_renews_the_patience():
    waits = Waits(1.0)
    for _ in range(10):
        waits.patience.after(UNAVAILABLE)
        waits.now += 0.9
        assert not waits.patience.is_new_trouble
        waits.patience.encouraged()
        assert waits.patience.is_new_trouble
    assert waits.slept == pytest.approx([0.1] * 10)


def test_a_service_that_says_when_is_not_asked_before():
    waits = Waits(20.0, drawn=0.0)
    waits.patience.after(ServiceUnavailableError("soon", retry_after_s=2.0))
    assert waits.slept == [2.0]
