"""Who may call: the token file, certificates, and what one owner may have."""

import os
import socket

import pytest

from shardsgd.coordinator.service import access
from shardsgd.coordinator.service.access import LOCAL, Caller, Tokens, hash_of, make_token, token_line
from shardsgd.coordinator.service.addresses import check_address, is_loopback
from shardsgd.coordinator.service.authentication import Authentication, secrets_in
from shardsgd.coordinator.service.limits import Limits
from shardsgd.coordinator.service.open_streams import OpenStreams
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.errors import InputError

# The same in every process: the names of tests are made of them.
ADA, BOB = f"shardsgd_{'y' * 43}", f"shardsgd_{'z' * 43}"


def replace(path, *lines):
    """Another file in its place, as an operator should do it."""
    beside = path.with_suffix(".new")
    beside.write_text("\n".join(lines) + "\n")
    beside.rename(path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tokens"
    replace(path, token_line("ada", "administrator", hash_of(ADA)), "", "# a comment", f"bob user {hash_of(BOB)} # his")
    return path


def test_a_token_has_an_owner_and_a_role(path):
    tokens = Tokens(path)
    assert tokens.caller(ADA) == Caller("ada", administrator=True)
    assert tokens.caller(BOB) == Caller("bob", administrator=False)


def test_nothing_else_is_a_token(path):
    tokens = Tokens(path)
    almost = ADA[:-1] + ("a" if ADA[-1] != "a" else "b")
    for wrong in ("", ADA[:-1], ADA + " ", almost, ADA.upper(), hash_of(ADA), "ada", "\udcff", "é" * 50, "x" * 10**6):
        assert tokens.caller(wrong) is None, wrong[:60]


def test_every_entry_is_compared_whichever_fits(path, monkeypatch):
    """How long it takes tells neither whether a token is nearly right nor which one it is."""
    compared = []
    import hmac

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    tokens = Tokens(path)
    for token in (ADA, BOB, "neither"):
        compared.clear()
        tokens.caller(token)
        assert compared == [(64, 64)] * 2


def test_tokens_are_long_random_and_not_in_their_file(path):
    made = {make_token()[0] for _ in range(100)}
    assert len(made) == 100
    assert min(len(token) for token in made) >= 43  # 256 bits in base64
    assert ADA not in path.read_text()
    assert hash_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


def test_a_withdrawn_token_stops_working_with_the_next_call(path):
    tokens = Tokens(path)
    replace(path, token_line("bob", "administrator", hash_of(BOB)))
    assert tokens.caller(ADA) is None
    assert tokens.caller(BOB) == Caller("bob", administrator=True)


def test_no_change_is_missed_however_soon_it_comes(path, monkeypatch):
    """In place, of the same length and within the tick of the file system's clock: nothing tells it but the text."""
    monkeypatch.setattr(access, "_look", lambda info: ())
    tokens = Tokens(path)
    for token, other in ((ADA, BOB), (BOB, ADA)):
        path.write_text(f"eve user {hash_of(token)}\n")
        assert tokens.caller(token) == Caller("eve", administrator=False)
        assert tokens.caller(other) is None


def test_a_file_that_has_settled_is_not_read_again(path, monkeypatch):
    import time

    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    tokens = Tokens(path)
    assert tokens.caller(ADA)
    monkeypatch.setattr(type(path), "open", None)
    assert tokens.caller(ADA)


def test_a_line_that_is_wrong_lets_nobody_in_and_is_told_once(path):
    said = []
    tokens = Tokens(path, said.append)
    replace(path, f"bob user {hash_of(BOB)}", f"ada root {hash_of(ADA)}")
    for _ in range(3):
        assert tokens.caller(ADA) is None
        assert tokens.caller(BOB)
    assert len(said) == 1
    assert "line 2" in said[0]
    assert hash_of(ADA) not in said[0]


def test_a_file_that_has_gone_lets_nobody_in_until_it_is_back(path):
    said = []
    tokens = Tokens(path, said.append)
    text = path.read_text()
    path.unlink()
    assert tokens.caller(ADA) is None
    assert "No such file" in said[0]
    path.write_bytes(b"\xff\xfe")
    assert tokens.caller(ADA) is None
    assert "UTF-8" in said[1]
    replace(path, text)
    assert tokens.caller(ADA)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no entry"),
        ("# nobody", "no entry"),
        ("ada administrator", "line 1"),
        (f"ada administrator {ADA}", "line 1"),
        (f"ada administrator {hash_of(ADA).upper()}", "line 1"),
        (f"ada king {hash_of(ADA)}", "line 1"),
        (f"../ada user {hash_of(ADA)}", "line 1"),
        (f"äda user {hash_of(ADA)}", "line 1"),
        (f"{'a' * 65} user {hash_of(ADA)}", "line 1"),
        (f"ada user {hash_of(ADA)} 1", "line 1"),
        (f"ada user {hash_of(ADA)}\nbob user {hash_of(ADA)}", "line 2: this token has another owner"),
        (f"ada user {hash_of(ADA)}\nada administrator {hash_of(ADA)}", "line 2: this token has another owner"),
    ],
)
def test_a_wrong_file_is_refused_when_the_service_starts(tmp_path, text, words):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        Tokens(path)
    # Somebody may have put the token itself where its hash belongs.
    assert ADA not in str(caught.value)


def test_all_wrong_lines_are_named(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("a\n\nb\n")
    with pytest.raises(InputError, match=r"(?s)line 1.*line 3"):
        Tokens(path)


def test_a_file_that_everybody_may_write_is_refused(path):
    path.chmod(0o666)
    with pytest.raises(InputError, match="chmod o-w"):
        Tokens(path)


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match=r"tokens: No such file"):
        Tokens(tmp_path / "tokens")
    with pytest.raises(InputError, match="Is a directory"):
        Tokens(tmp_path)


def test_lines_for_the_file_are_checked():
    for owner in ("", "#ada", "a da", "ada\nbob", "é"):
        with pytest.raises(InputError, match="OWNER"):
            token_line(owner, "user", hash_of(ADA))
    with pytest.raises(InputError, match="ROLE"):
        token_line("ada", "king", hash_of(ADA))


def test_an_owner_may_use_their_own_and_an_administrator_everything():
    assert Caller("ada", administrator=False).may_use("ada")
    assert not Caller("ada", administrator=False).may_use("bob")
    assert Caller("ada", administrator=True).may_use("bob")


def metadata(*values):
    return [("user-agent", "x"), *(("authorization", value) for value in values)]


def test_a_token_decides_where_tokens_are_asked_for(path):
    for certificates in (False, True):
        who = Authentication(Tokens(path), certificates)
        assert who.caller(metadata(f"Bearer {BOB}"), [b"ada"]).owner == "bob"
        assert who.caller(metadata(f"bearer  {BOB}"), []).owner == "bob"


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ("Bearer",),
        (BOB,),
        (f"Basic {BOB}",),
        (f"Bearer {BOB} {BOB}",),
        (f"Bearer {ADA}x",),
        (f"Bearer {BOB}",) * 2,
    ],
)
def test_without_one_known_token_nobody_is_let_in(path, values):
    with pytest.raises(ServiceError) as caught:
        Authentication(Tokens(path), certificates=True).caller(metadata(*values), [b"ada"])
    assert caught.value.reason is Reason.UNAUTHENTICATED
    assert BOB not in caught.value.message


def test_a_certificate_decides_where_there_are_no_tokens():
    assert Authentication(certificates=True).caller(metadata(f"Bearer {ADA}"), [b"bob"]) == Caller("bob", False)


@pytest.mark.parametrize(
    "names", [[], [b"ada", b"bob"], [b""], [b"a b"], ["adа".encode()], [b"a" * 65], [b"../x"], [b"a\x00"]]
)
def test_a_certificate_without_one_usable_name_lets_nobody_in(names):
    with pytest.raises(ServiceError) as caught:
        Authentication(certificates=True).caller([], names)
    assert caught.value.reason is Reason.UNAUTHENTICATED


def test_where_nobody_asks_the_caller_is_the_local_administrator():
    assert Authentication().caller(metadata("Bearer x"), []) == LOCAL == Caller("local", administrator=True)


def test_what_must_not_be_logged_is_known():
    assert secrets_in(metadata(f"Bearer {ADA}", BOB)) == [ADA, BOB]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_on_loopback_nothing_is_asked_for(host):
    assert is_loopback(host)
    check_address(host, tls=False, authenticated=False, insecure=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "::", "[::]", "10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "fe80::1%lo", "0"]
)
def test_in_the_open_tls_and_callers_are_asked_for(host):
    with pytest.raises(InputError, match="--tls-cert"):
        check_address(host, tls=False, authenticated=False, insecure=False)
    with pytest.raises(InputError, match=r"(?s)tokens.*--tls-cert"):
        check_address(host, tls=False, authenticated=True, insecure=False)
    with pytest.raises(InputError, match="--token-file"):
        check_address(host, tls=True, authenticated=False, insecure=False)
    check_address(host, tls=True, authenticated=True, insecure=False)
    check_address(host, tls=False, authenticated=False, insecure=True)


@pytest.mark.parametrize("host", ["no such host", "a" * 300, "é" * 70, "[["])
def test_an_address_that_is_none_is_refused_in_words(host):
    with pytest.raises(InputError, match="--address"):
        check_address(host, tls=False, authenticated=False, insecure=False)


def test_a_name_with_one_address_in_the_open_is_in_the_open(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "192.0.2.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    assert not is_loopback("host")


def test_limits_are_checked_all_at_once():
    assert Limits().watchers >= 200
    assert Limits(open_jobs=None, workers=1).workers == 1
    with pytest.raises(InputError, match=r"open_jobs = 0, watchers = -1"):
        Limits(open_jobs=0, watchers=-1)


def test_streams_are_counted_by_caller_and_given_back():
    streams = OpenStreams(2)
    with streams.one_more("ada"), streams.one_more("ada"), streams.one_more("bob"):
        with pytest.raises(ServiceError) as caught, streams.one_more("ada"):
            pass
        assert caught.value.reason is Reason.TOO_MANY_WATCHERS
    with pytest.raises(KeyError), streams.one_more("ada"):
        raise KeyError
    with streams.one_more("ada"), streams.one_more("ada"):
        pass
    with OpenStreams(None).one_more("ada"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_in_words(path):
    path.chmod(0o000)
    with pytest.raises(InputError, match="Permission denied"):
        Tokens(path)
