"""A session whose folder another one has taken over writes nothing any more."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from checkpoints import LAYOUT, SLOTS, job_keeping, state_at
from session_process import opened, record_of, step_once

from shardsgd.coordinator import fence
from shardsgd.coordinator.checkpoint import save_checkpoint
from shardsgd.coordinator.checkpoint_reading import load_checkpoint
from shardsgd.coordinator.files import write_atomically
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.errors import InputError, TakenOverError

SCRIPT = Path(__file__).parents[1] / "support/session_process.py"
TAKEN_OVER = (
    r"another run \(incarnation 2, pid {pid}\) has taken over {path}; this one stops and has written nothing since"
)


def content(path):
    """Every byte of a folder; and when a file last came, went or was renamed, be it for a moment."""
    found = {file: file.read_bytes() if file.is_file() else file.stat().st_mtime_ns for file in path.rglob("*")}
    return found | {path: path.stat().st_mtime_ns}


@contextmanager
def stopped(path, function):
    """A session that stopped itself in step 4 when it first came to a function of the os module."""
    with subprocess.Popen(
        [sys.executable, SCRIPT, path, "run", function, "4"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert [process.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            yield process
        finally:
            process.kill()


def test_a_session_that_wakes_up_ends_with_the_reason_and_changes_not_a_byte(tmp_path):
    """At whatever operation it was stopped: see test_checkpoint_killed.py."""
    with stopped(tmp_path, "fsync") as process:
        with opened(tmp_path, "take-over") as (folder, step):
            assert step == 3
            step_once(folder, 4)
            ours = content(tmp_path)
            process.send_signal(signal.SIGCONT)
            said = process.stdout.read()
            assert process.wait() == 1
            assert said.startswith("TakenOverError: another run")
            assert f"incarnation 2, pid {os.getpid()}" in said
            assert content(tmp_path) == ours
            step_once(folder, 5)
        assert load_checkpoint(tmp_path / "checkpoints", LAYOUT, SLOTS, print).state.step == 5
        assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == list(
            range(5)
        )


def test_between_its_check_and_its_rename_a_session_keeps_the_folder_and_who_wants_it_is_told_its_pid(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(fence, "_PATIENCE_S", 0.1)
    with stopped(tmp_path, "replace") as process:
        theirs = content(tmp_path)
        for take_over in (True, False):
            with pytest.raises(InputError, match=rf"incarnation 1, pid {process.pid} on .* was stopped"):
                RunFolder(tmp_path).lock(take_over=take_over).__enter__()
        assert content(tmp_path) == theirs
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "4\n", "it goes on as if nothing had been"


def test_take_over_is_patient_with_a_session_that_is_just_changing_something(tmp_path):
    with stopped(tmp_path, "replace") as process:
        # Wakes it up at the first look at the lock, which is then taken.
        looks = []
        original = fence.fcntl.flock

        def flock(handle, operation):
            looks.append(operation)
            try:
                return original(handle, operation)
            finally:
                process.send_signal(signal.SIGCONT)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fence.fcntl, "flock", flock)
            with RunFolder(tmp_path).lock(take_over=True):
                assert process.stdout.read().splitlines()[-1].startswith("TakenOverError")


def commits():
    """All that changes a folder that is recorded to."""
    yield "metrics", lambda folder: (folder.append(record_of(9)), folder.flush())
    yield "no metrics", lambda folder: folder.flush()
    yield "reading", lambda folder: (folder.append(record_of(9)), folder.read_metrics())
    yield (
        "checkpoint",
        lambda folder: save_checkpoint(folder.checkpoints, state_at(9), job_keeping(), folder.guard),
    )
    yield "parameters", lambda folder: folder.write_parameters(LAYOUT.views(state_at(9).theta))
    yield "report", lambda folder: write_atomically(folder.path / "report.html", b"", folder.guard)
    yield "record", lambda folder: folder.record(job_keeping().spec, resumed=None).__enter__()
    yield "record resumed", lambda folder: folder.record(job_keeping().spec, resumed=state_at(1)).__enter__()


@pytest.mark.parametrize("commit", [pytest.param(commit, id=name) for name, commit in commits()])
def test_nothing_that_is_written_gets_past_the_fence(tmp_path, commit):
    with ExitStack() as stack:
        old, _ = stack.enter_context(opened(tmp_path, "run"))
        step_once(old, 1)
        old.append(record_of(1))
        with opened(tmp_path, "take-over") as (new, step):
            step_once(new, step + 1)
            ours = content(tmp_path)
            with pytest.raises(TakenOverError, match=TAKEN_OVER.format(pid=os.getpid(), path=tmp_path)):
                commit(old)
            assert content(tmp_path) == ours
            assert {file.name for file in tmp_path.iterdir()} == {"checkpoints", "job.toml", "metrics.jsonl"}
            step_once(new, step + 2)
        # It leaves its blocks as it found the folder: with an error, and without a trace.
        ours = content(tmp_path)
        with pytest.raises(TakenOverError):
            stack.close()
        assert content(tmp_path) == ours


def test_the_metrics_handle_of_the_session_before_leads_nowhere(tmp_path):
    """Even what would be written past the fence."""
    old = RunFolder(tmp_path)
    with old.lock():
        metrics = old.record(job_keeping().spec, resumed=None)
        metrics.__enter__()
        with opened(tmp_path, "take-over"):
            ours = content(tmp_path)
            os.write(old._open_metrics._handle, b"late\n")
            assert content(tmp_path) == ours
        with pytest.raises(TakenOverError):
            metrics.__exit__(None, None, None)


def test_without_take_over_a_folder_belongs_to_the_session_that_lives(tmp_path):
    first, second, third = (RunFolder(tmp_path) for _ in range(3))
    with first.lock():
        with pytest.raises(
            InputError, match=rf"another run is writing.*\(incarnation 1, pid {os.getpid()} on .*--take-over"
        ):
            second.lock().__enter__()
        with second.lock(take_over=True), pytest.raises(InputError, match=r"another run is writing.*incarnation 2"):
            # The session that took over is as well protected as the one from which it took.
            third.lock().__enter__()
        # And when it has ended, the first one, which is fenced off, keeps nobody out.
        with third.lock(), third.guard(), pytest.raises(AssertionError):
            second.guard()


def test_incarnations_are_numbered_without_gap_or_repeat_and_outlive_their_sessions(tmp_path):
    numbers = []
    for take_over in (False, True, False):
        with RunFolder(tmp_path).lock(take_over=take_over):
            incarnation = json.loads((tmp_path / "checkpoints/incarnation").read_text())
            assert set(incarnation) == {"number", "pid", "host", "started"}
            assert incarnation["pid"] == os.getpid()
            numbers.append(incarnation["number"])
    with subprocess.Popen([sys.executable, SCRIPT, tmp_path, "resume"], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.kill()
    with RunFolder(tmp_path).lock():
        numbers.append(json.loads((tmp_path / "checkpoints/incarnation").read_text())["number"])
    assert numbers == [1, 2, 3, 5]


def test_a_fresh_run_does_not_begin_to_count_anew(tmp_path):
    for _ in range(2):
        with opened(tmp_path, "run") as (folder, _):
            step_once(folder, 1)
    assert json.loads((tmp_path / "checkpoints/incarnation").read_text())["number"] == 2


def test_a_damaged_incarnation_is_a_clear_error(tmp_path):
    with RunFolder(tmp_path).lock():
        pass
    (tmp_path / "checkpoints/incarnation").write_text("{")
    with pytest.raises(InputError, match=r"checkpoints/incarnation is damaged .*remove it"):
        RunFolder(tmp_path).lock().__enter__()


def test_a_folder_that_is_gone_is_an_error_of_the_disk(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(FileNotFoundError):
            folder.guard().__enter__()


def test_the_error_survives_a_trip_between_processes_and_ends_with_1():
    error = pickle.loads(pickle.dumps(TakenOverError("why")))
    assert (type(error), str(error), error.exit_code) == (TakenOverError, "why", 1)
