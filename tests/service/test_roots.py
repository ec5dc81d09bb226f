"""Paths that callers name lead to files and folders under a root, or nowhere."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.roots import allowed, checked_roots
from shardsgd.errors import InputError


def make_disk(path):
    """Two roots, what lies beside them, and links and special files everywhere."""
    for folder in ("root/sub/deep", "second", "outside", "root2"):
        (path / folder).mkdir(parents=True)
    for file in (
        "root/rows.csv",
        "root/sub/rows.csv",
        "second/other.csv",
        "outside/secret.csv",
        "root2/near.csv",
        "root/~x",
    ):
        (path / file).write_text("x,label\n1,2\n")
    links = {
        "root/link.csv": "sub/rows.csv",
        "root/out.csv": "../outside/secret.csv",
        "root/out": "../outside",
        "root/absolute": str(path / "outside/secret.csv"),
        "root/over": "../second/other.csv",
        "root/chain": "out.csv",
        "root/loop": "loop",
        "root/dead": "nothing",
        "root/dead_out": "../outside/nothing",
        "root/self": ".",
        "root/up": "..",
        "linked_root": "root",
        "outside/in.csv": "../root/rows.csv",
    }
    for link, target in links.items():
        (path / link).symlink_to(target)
    os.mkfifo(path / "root/fifo")
    return path


@pytest.fixture
def disk(tmp_path):
    return make_disk(tmp_path)


@pytest.fixture(scope="module")
def kept_disk(tmp_path_factory):
    return make_disk(tmp_path_factory.mktemp("disk"))


def refused(source, roots):
    """What the caller is told, without the name they gave."""
    with pytest.raises(ServiceError) as caught:
        allowed(source, roots)
    error = caught.value
    assert error.reason is Reason.DATA_NOT_ALLOWED
    (problem,) = error.fields
    assert problem.path == "data.source"
    assert error.message == str(problem)
    assert not error.metadata
    assert not error.__cause__
    return problem.accepted


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("rows.csv", "root/rows.csv"),
        ("./sub//rows.csv", "root/sub/rows.csv"),
        ("sub/../rows.csv", "root/rows.csv"),
        ("sub", "root/sub"),
        ("sub/", "root/sub"),
        (".", "root"),
        ("link.csv", "root/sub/rows.csv"),
        ("self/self/rows.csv", "root/rows.csv"),
        ("~x", "root/~x"),
        ("other.csv", "second/other.csv"),
        ("over", "second/other.csv"),
    ],
)
def test_what_lies_under_a_root_is_found_relative_and_absolute(disk, source, found):
    roots = checked_roots([disk / "root", disk / "second"])
    assert allowed(source, roots) == disk / found
    if source not in ("other.csv", "~x"):
        assert allowed(f"{disk}/root/{source}", roots) == disk / found


def test_the_first_root_that_has_it_counts(disk):
    (disk / "second/rows.csv").write_text("")
    assert allowed("rows.csv", [disk / "second", disk / "root"]) == disk / "second/rows.csv"
    assert allowed("rows.csv", [disk / "root", disk / "second"]) == disk / "root/rows.csv"


NOWHERE = [
    "",
    "nothing.csv",
    "nothing/../../outside/secret.csv",
    "../outside/secret.csv",
    "../outside/nothing.csv",
    "../outside",
    "..",
    "../root2/near.csv",
    "sub/../../outside/secret.csv",
    "out.csv",
    "out",
    "out/secret.csv",
    "out/nothing.csv",
    "absolute",
    "chain",
    "dead",
    "dead_out",
    "loop",
    "loop/rows.csv",
    "up/outside/secret.csv",
    "over/../other.csv",
    "fifo",
    "rows.csv/x",
    "rows.csv\0",
    "\0",
    "rows.csv\0/../../outside/secret.csv",
    "x" * 256,
    "x/" * 3000,
    "../" * 3000,
    "x" * 2_000_000,
    "\udcff",
    "~/rows.csv",
    "~root",
    "file:///etc/passwd",
    "//etc/passwd",
    "/",
    "/etc/passwd",
    "/etc/nothing",
    "/proc/self/root/etc/passwd",
    "/proc/self/mem",
    "/dev/zero",
]


@pytest.mark.parametrize("source", NOWHERE, ids=lambda source: ascii(source[:40]))
def test_all_else_is_refused_in_the_same_words(disk, source):
    words = refused("nothing.csv", [disk / "root"])
    assert refused(source, [disk / "root"]) == words
    assert "service's data roots" in words
    assert str(disk) not in words


@pytest.mark.parametrize(
    "name", ["outside/secret.csv", "outside/nothing.csv", "outside/in.csv", "root2/near.csv", "rootx"]
)
def test_absolute_paths_outside_are_refused_whether_or_not_they_exist(disk, name):
    refused(f"{disk}/{name}", [disk / "root"])
    refused(f"{disk}/root/../{name}", [disk / "root"])


def test_the_disk_outside_is_not_even_looked_at(disk, monkeypatch):
    """How long the answer takes could tell what is there."""
    looked = []
    real = os.lstat

    def lstat(path, *args, **options):
        looked.append(os.fspath(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "lstat", lstat)
    for source in (f"{disk}/outside/secret.csv", "../outside/secret.csv", "sub/../../outside/in.csv", "/etc/passwd"):
        refused(source, [disk / "root"])
    assert looked, "the roots themselves are looked at: this test would see it"
    assert not [path for path in looked if path.startswith((f"{disk}/outside", "/etc"))]


def test_devices_and_sockets_are_refused(disk, monkeypatch):
    refused("/dev/zero", [Path("/dev")])
    refused("null", [Path("/dev")])
    monkeypatch.chdir(disk / "root")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        refused("socket", [disk / "root"])


def test_a_root_may_be_a_link_itself_and_is_followed_when_it_moves(disk):
    roots = checked_roots([disk / "linked_root"])
    assert roots == (disk / "linked_root",)
    assert allowed("rows.csv", roots) == disk / "root/rows.csv"
    assert allowed(f"{disk}/linked_root/rows.csv", roots) == disk / "root/rows.csv"
    # The real name of the root is as good; what else leads there is not: to see that, the disk outside would have to be read.
    assert allowed(f"{disk}/root/rows.csv", roots) == disk / "root/rows.csv"
    refused(f"{disk}/outside/in.csv", roots)
    refused("out.csv", roots)
    (disk / "linked_root").unlink()
    (disk / "linked_root").symlink_to("second")
    assert allowed("other.csv", roots) == disk / "second/other.csv"
    refused("rows.csv", roots)


def test_a_root_that_has_gone_has_nothing(disk):
    roots = checked_roots([disk / "root2", disk / "second"])
    (disk / "root2").rename(disk / "moved")
    refused("near.csv", roots)
    assert allowed("other.csv", roots) == disk / "second/other.csv"


def test_the_whole_disk_can_be_a_root(disk):
    assert allowed(f"{disk}/outside/secret.csv", [Path("/")]) == disk / "outside/secret.csv"
    assert allowed(f"{disk}/root/out.csv".lstrip("/"), [Path("/")]) == disk / "outside/secret.csv"


def test_without_roots_nothing_is_read(disk):
    assert "upload" in refused("rows.csv", [])
    assert "upload" in refused(f"{disk}/root/rows.csv", [])


def test_long_names_are_not_sent_back(disk):
    with pytest.raises(ServiceError) as caught:
        allowed("x" * 2_000_000, [disk / "root"])
    assert len(caught.value.message) < 300


def test_roots_are_checked_and_made_absolute(disk, monkeypatch):
    monkeypatch.chdir(disk)
    assert checked_roots([Path("root"), disk / "second/../second"]) == (disk / "root", disk / "second")
    assert checked_roots([]) == ()
    with pytest.raises(InputError, match=r"not a folder: nothing, root/rows.csv"):
        checked_roots([Path("nothing"), Path("root"), Path("root/rows.csv")])


PARTS = [
    "..",
    ".",
    "",
    "sub",
    "deep",
    "rows.csv",
    "out",
    "out.csv",
    "up",
    "self",
    "over",
    "root",
    "outside",
    "secret.csv",
    "~",
]


@given(parts=st.lists(st.sampled_from(PARTS), max_size=8), is_absolute=st.booleans())
def test_nothing_outside_is_ever_found(kept_disk, parts, is_absolute):
    root = kept_disk / "root"
    with suppress(ServiceError):  # whose reason other tests see to
        found = allowed(os.path.join(root if is_absolute else "", *parts), [root])
        assert found == found.resolve(strict=True)
        assert found.is_relative_to(root)
