"""Uploads: whole and checked, or nothing at all."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import new_job

from shardsgd.coordinator.service.datasets import (
    SUFFIXES,
    ChecksumError,
    DatasetFiles,
    UploadError,
    UploadTooLargeError,
)
from shardsgd.coordinator.service.jobs import DatasetGoneError, DiskFullError
from shardsgd.coordinator.service.states import JobState
from shardsgd.coordinator.service.store import JobStore

PROCESS = Path(__file__).parents[1] / "support" / "store_process.py"
MOST = 10_000
DATA = random.Random(0).randbytes(5_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def files(tmp_path):
    return DatasetFiles(tmp_path / "store" / "datasets", MOST)


def content(files):
    return {path.name: path.read_bytes() for path in files.path(SHA, ".csv").parent.iterdir()}


def upload(files, data=DATA, sha256=None, size=None, suffix=".csv", chunk_bytes=777):
    """Sends data in chunks; the path of the file."""
    sha256 = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
    with files.begin(sha256, len(data) if size is None else size, suffix) as coming:
        for start in range(0, len(data), chunk_bytes):
            coming.write(data[start : start + chunk_bytes])
        return coming.finish()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_sent_is_there_for_this_user_only(files, suffix):
    path = upload(files, suffix=suffix)
    assert path == files.path(SHA, suffix)
    assert path.read_bytes() == DATA
    assert path.suffix == suffix
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@given(st.binary(min_size=1, max_size=300), st.integers(1, 300))
def test_in_chunks_of_any_size(tmp_path_factory, data, chunk_bytes):
    files = DatasetFiles(tmp_path_factory.getbasetemp() / "any", MOST)
    assert upload(files, data, chunk_bytes=chunk_bytes).read_bytes() == data


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"sha256": "a" * 64}, ChecksumError, f"sha256 = {'a' * 64}: the bytes that came have {SHA}"),
        ({"size": 4_999}, UploadError, "size_bytes = 4999: at least 5000 bytes came"),
        ({"size": 1}, UploadError, "size_bytes = 1: at least 777 bytes came"),
        ({"size": 5_001}, UploadError, "size_bytes = 5001: only 5000 bytes came"),
        ({"size": MOST + 1}, UploadTooLargeError, "size_bytes = 10001: accepted: 1 … 10000"),
        ({"size": 0}, UploadError, "size_bytes = 0: accepted: 1 … 10000"),
        ({"size": -1}, UploadError, "size_bytes = -1: accepted: 1 … 10000"),
        ({"suffix": ".pkl"}, UploadError, r"format = '.pkl': accepted: .csv .npy .npz .parquet"),
        ({"suffix": ".csv/../../x.csv"}, UploadError, "format = "),
        ({"sha256": SHA.upper()}, UploadError, "sha256 = .*: accepted: 64 digits 0-9 a-f"),
        ({"sha256": "../" + SHA}, UploadError, "sha256 = "),
        ({"sha256": SHA + "\n"}, UploadError, "sha256 = "),
        ({"sha256": ""}, UploadError, "sha256 = ''"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(files, wrong, error, words):
    with pytest.raises(UploadError, match=words) as caught:
        upload(files, **wrong)
    assert type(caught.value) is error
    assert content(files) == {}
    # Nor does it keep the right one from coming.
    assert upload(files).read_bytes() == DATA


def test_what_is_too_much_is_not_written(files):
    with files.begin(SHA, 10, ".csv") as coming, pytest.raises(UploadError):
        coming.write(DATA)
    with files.begin(SHA, 10, ".csv") as coming:
        coming.write(b"x" * 10)
        with pytest.raises(UploadError):
            coming.write(b"x")
        assert [len(data) for data in content(files).values()] == [10]


def test_one_that_is_broken_off_leaves_nothing(files):
    def break_off():
        with files.begin(SHA, 5_000, ".csv") as coming:
            coming.write(DATA[:100])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    with files.begin(SHA, 5_000, ".csv") as coming:
        coming.write(DATA)
    assert content(files) == {}


def test_killed_in_the_middle_it_leaves_nothing_after_a_sweep(files):
    arguments = [sys.executable, PROCESS, "upload", files.path(SHA, ".csv").parent, SHA, "5000"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert [len(data) for data in content(files).values()] == [2500]
    (left,) = files.path(SHA, ".csv").parent.iterdir()
    assert files.sweep(lambda sha256: True) == [left]
    assert content(files) == {}


def test_the_same_twice_is_there_once_and_mends_it(files):
    path = upload(files)
    path.write_bytes(b"rotten")
    assert upload(files) == path
    assert content(files) == {path.name: DATA}


def test_the_same_from_many_at_once_is_there_once(files):
    barrier = threading.Barrier(8)
    errors = []

    def send():
        try:
            barrier.wait()
            upload(files, chunk_bytes=50)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert content(files) == {f"{SHA}.csv": DATA}


def test_two_at_once_of_which_one_is_wrong(files):
    with files.begin(SHA, 5_000, ".csv") as right, files.begin(SHA, 5_000, ".csv") as wrong:
        right.write(DATA)
        wrong.write(DATA[::-1])
        right.finish()
        with pytest.raises(ChecksumError):
            wrong.finish()
    assert content(files) == {f"{SHA}.csv": DATA}


class TestSweeping:
    def test_what_nobody_has_goes_and_the_rest_stays(self, files):
        kept, lost = upload(files), [upload(files, b"other"), upload(files, b"other", suffix=".npz")]
        foreign = kept.with_name("notes.txt")
        foreign.write_text("not ours")
        assert files.sweep(lambda sha256: sha256 == SHA) == sorted(lost)
        assert set(content(files)) == {kept.name, foreign.name}
        assert files.sweep(lambda sha256: sha256 == SHA) == []

    def test_not_what_is_coming_in(self, files):
        with files.begin(SHA, 5_000, ".csv") as coming:
            coming.write(DATA)
            assert files.sweep(lambda sha256: False) == []
            path = coming.finish()
            # Not linked yet: that is what the block is for.
            assert files.sweep(lambda sha256: False) == []
        assert path.read_bytes() == DATA
        assert files.sweep(lambda sha256: False) == [path]

    def test_under_uploads_and_forgetting_no_dataset_is_linked_without_its_file(self, files, tmp_path):
        """Sweeps as fast as they can beside uploads, as a service's timer may come at any moment."""
        done = threading.Event()
        with closing(JobStore(tmp_path / "store")) as store:

            def clean():
                while not done.is_set():
                    store.forget_datasets(1e9)
                    files.sweep(store.is_linked)

            cleaner = threading.Thread(target=clean)
            cleaner.start()
            used = 0
            try:
                for number in range(60):
                    data = b"ab"[number % 2 :][:1] * 1000
                    sha256 = hashlib.sha256(data).hexdigest()
                    with files.begin(sha256, 1000, ".csv") as coming:
                        coming.write(data)
                        path = coming.finish()
                        store.link_dataset(sha256, "ada", 1000, ".csv", 1.0)
                    try:
                        job, _ = store.create(new_job(created_at=1.0), dataset=sha256)
                    except DatasetGoneError:
                        continue
                    used += 1
                    assert path.read_bytes() == data
                    store.change(job.job_id, state=JobState.CANCELLED, at=2.0)
            finally:
                done.set()
                cleaner.join()
        assert used


def test_no_room_is_said_before_anything_is_sent(files):
    roomy = DatasetFiles(files.path(SHA, ".csv").parent, 2**62)
    with pytest.raises(DiskFullError, match=f"no room for a dataset of {2**60} bytes"), roomy.begin(SHA, 2**60, ".csv"):
        pass
    assert content(files) == {}


def test_a_disk_that_takes_no_more_is_said_and_left_as_it_was(files):
    """In a process whose files may not become larger: the kernel refuses the same call as for a full disk."""
    folder = files.path(SHA, ".csv").parent
    done = subprocess.run(
        [sys.executable, PROCESS, "limited", folder, SHA, "50000", "20000"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{folder}: {os.strerror(27).lower()}: the dataset cannot be kept\n"
    assert content(files) == {}
