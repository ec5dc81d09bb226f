"""Who may do what, over TLS, with tokens: the commands that the docs tell an operator to run."""

import shutil
import subprocess
import sys

import pytest
from certificates import make_authority, make_certificate
from service import serving

import shardsgd
from shardsgd.errors import ShardsgdError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="makes its certificates with the openssl command"
)


def spec(**stop):
    return shardsgd.JobSpec(data={"source": "digits"}, model={"kind": "linear"}, workers={"count": 1}, stop=stop)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with the service's certificate, its token file, and three tokens by owner."""
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder, "ca")
    make_certificate(folder, "ca", "server")
    tokens = {}
    for owner, more in (("ada", []), ("bob", []), ("root", ["--administrator"])):
        command = [sys.executable, "-m", "shardsgd", "token", owner, *more, "--token-file", folder / "tokens"]
        tokens[owner] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert all(token not in (folder / "tokens").read_text() for token in tokens.values())
    return folder, tokens


@pytest.fixture(scope="module")
def secured(keys, tmp_path_factory):
    folder, _ = keys
    tls = ("--tls-cert", folder / "server.pem", "--tls-key", folder / "server.key", "--token-file", folder / "tokens")
    with serving(tmp_path_factory.mktemp("secured") / "store", *tls, "--max-open-jobs", 2) as service:
        yield service


@pytest.fixture
def client_of(keys, secured):
    folder, tokens = keys
    opened = []

    def client(owner):
        opened.append(shardsgd.Client(secured.address, token=tokens.get(owner, owner), tls_ca=folder / "ca.pem"))
        return opened[-1]

    yield client
    for each in opened:
        each.close()


def reason_of(call):
    with pytest.raises(ShardsgdError) as caught:
        call()
    return caught.value.reason


def test_owners_see_their_own_and_administrators_everybodys(client_of):
    ada, bob, root = (client_of(owner) for owner in ("ada", "bob", "root"))
    job = ada.submit(spec(epochs=2))
    job.wait(timeout_s=60)
    assert job.id in [each.job_id for each in ada.jobs()]
    assert job.id not in [each.job_id for each in bob.jobs()]
    assert job.id in [each.job_id for each in root.jobs()]
    absent = reason_of(lambda: bob.job("nobody-0").get())
    for ask in (bob.job(job.id).get, bob.job(job.id).cancel, bob.job(job.id).delete, bob.job(job.id).result):
        assert reason_of(ask) == absent, "as if it were not there"
    assert root.job(job.id).get().owner == "ada"


def test_a_wrong_token_gets_nothing(client_of, secured):
    assert reason_of(client_of("shardsgd_wrong").server_info) == "UNAUTHENTICATED"
    assert "shardsgd_wrong" not in secured.errors()


def test_an_owner_has_no_more_jobs_than_allowed(client_of):
    ada = client_of("ada")
    jobs = [ada.submit(spec(epochs=10**6)) for _ in range(2)]
    assert reason_of(lambda: ada.submit(spec(epochs=1))) == "QUOTA_EXCEEDED"
    for job in jobs:
        job.cancel()


def test_plain_text_does_not_get_through(secured):
    with shardsgd.Client(secured.address, patience_s=0.1) as client, pytest.raises(ShardsgdError, match="wants TLS"):
        client.server_info()


def test_a_command_without_a_token_says_how_to_give_one(keys, secured):
    command = [sys.executable, "-m", "shardsgd", "jobs", "--server", secured.address, "--tls-ca", keys[0] / "ca.pem"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no token" in done.stderr
    assert "--token-file or SHARDSGD_TOKEN_FILE" in done.stderr
