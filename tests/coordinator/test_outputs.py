import json
import math
import os
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
from fakes import toy_spec
from safetensors.numpy import load_file

from shardsgd.coordinator.files import write_atomically
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.records import GradientNoise, Incident, StepRecord, Summary, ValidationRecord, as_json
from shardsgd.coordinator.stop import Progress
from shardsgd.errors import InputError
from shardsgd.model.statistics import NoiseHistory


def step_record(step, **changes):
    fields = {
        "step": step,
        "epoch": 0,
        "loss": 1.5,
        "learning_rate": 0.1,
        "gradient_norm": 2.0,
        "noise_trace": None,
        "noise_scale": 30.0,
        "step_seconds": 0.01,
    }
    return StepRecord(**fields | changes)


@contextmanager
def opened(folder: RunFolder, resumed=None):
    with folder.lock(), folder.record(toy_spec(), resumed=resumed):
        yield folder


def at(step: int, epochs: int) -> TrainState:
    return TrainState(step, np.zeros(1), None, NoiseHistory(), Progress(epochs=epochs), 0.0, 0, float(step))


def test_metrics_come_back_and_a_resume_drops_what_will_be_computed_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with opened(folder):
        for step in range(4):
            folder.append(step_record(step))
        folder.append(ValidationRecord(4, 1, 0.5, 0.9))
        folder.append(step_record(4))
    with opened(folder, at(4, epochs=1)):
        steps, validations, _ = folder.read_metrics()
        assert [record.step for record in steps] == [0, 1, 2, 3]
        assert steps[0] == step_record(0)
        assert validations == [ValidationRecord(4, 1, 0.5, 0.9)]
    with opened(folder, at(4, epochs=0)):
        steps, validations, _ = folder.read_metrics()
        assert ([record.step for record in steps], validations) == ([0, 1, 2, 3], []), "it will be evaluated again"
    with opened(folder, at(3, epochs=0)):
        assert [record.step for record in folder.read_metrics().steps] == [0, 1, 2]
    with opened(folder):
        assert folder.read_metrics() == ([], [], [])


@pytest.mark.parametrize("cut", [b'{"step": 1, "epo', b'{"step": 1, "epoch": 0}', b'{"step": 1, "reason": "\xc3'])
def test_a_line_cut_off_by_a_crash_does_not_stop_a_resume(tmp_path, cut):
    folder = RunFolder(tmp_path)
    with opened(folder):
        folder.append(step_record(0))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(cut)
    with opened(folder, at(2, epochs=0)):
        assert [record.step for record in folder.read_metrics().steps] == [0]


def test_a_disk_that_was_full_for_a_while_leaves_no_line_twice(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    write, written = os.write, []

    def full_for_a_while(handle, text):
        written.append(text)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return write(handle, text[:7] if len(written) == 1 else text)

    with opened(folder):
        folder.append(step_record(0))
        with monkeypatch.context() as patch:
            patch.setattr("os.write", full_for_a_while)
            with pytest.raises(OSError, match="No space left"):
                folder.flush()
            folder.append(step_record(1))
            folder.flush()
        assert folder.read_metrics() == ([step_record(0), step_record(1)], [], [])


def test_lines_are_kept_until_they_are_flushed(tmp_path):
    """Nothing reaches the file by itself, past the check whose folder it is."""
    folder = RunFolder(tmp_path)
    with opened(folder):
        for step in range(1000):
            folder.append(step_record(step))
        assert (tmp_path / "metrics.jsonl").read_bytes() == b""
        folder.flush()
        assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 1000


def test_numbers_that_json_lacks_become_null_and_come_back_as_nan(tmp_path):
    folder = RunFolder(tmp_path)
    with opened(folder):
        folder.append(step_record(0, gradient_norm=math.inf))
        assert math.isnan(folder.read_metrics().steps[0].gradient_norm)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["gradient_norm"] is None


def test_a_fresh_run_removes_what_an_earlier_one_left(tmp_path):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    old = ["summary.json", "report.html", "parameters.safetensors", ".summary.json.0123abcd", ".metrics.jsonl.0123abcd"]
    old += [
        f"checkpoints/{name}" for name in ("step-000000001.safetensors", "step-000000001.json", "step-000000002.json")
    ]
    for name in (*old, "checkpoints/.step-000000002.json.0123abcd"):
        (tmp_path / name).write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    with opened(folder):
        pass
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["incarnation", "job.toml", "metrics.jsonl", "notes.txt"]


def test_a_folder_that_records_does_not_keep_the_state_from_which_it_goes_on(tmp_path):
    """It is of the size of the model."""
    folder, state = RunFolder(tmp_path), at(4, epochs=1)
    theta = weakref.ref(state.theta)
    with folder.lock():
        recording = folder.record(toy_spec(), resumed=state)
        with recording:
            del state
            assert theta() is None


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    with RunFolder(tmp_path).lock(), pytest.raises(InputError, match="another run is writing"):
        RunFolder(tmp_path).lock().__enter__()
    with RunFolder(tmp_path).lock():
        pass


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file.*: cannot be written"):
        RunFolder(tmp_path / "file").lock().__enter__()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"--out .*: cannot be written: .*report\.html"):
        opened(RunFolder(tmp_path)).__enter__()


@pytest.mark.parametrize(
    ("summary", "checkpoint", "unfinished"),
    [
        (None, True, True),
        ('{"state": "INTERRUPTED"}', True, True),
        ('{"state": "SUCCEEDED"}', True, False),
        ("not json", True, True),
        (None, False, False),
    ],
)
def test_an_unfinished_run_is_told_from_a_finished_one(tmp_path, summary, checkpoint, unfinished):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    if checkpoint:
        (folder.checkpoints / "step-000000001.json").write_text("")
    if summary:
        (tmp_path / "summary.json").write_text(summary)
    assert folder.unfinished == unfinished


def test_files_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_parameters_and_summary_are_written_as_promised(tmp_path):
    folder = RunFolder(tmp_path)
    arrays = {"layer0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "layer0.bias": np.zeros(3, np.float32)}
    summary = Summary(
        name="n",
        state="FAILED",
        reason="r",
        steps=3,
        epochs=0.5,
        train_loss=math.nan,
        validation=None,
        parameters_sha256="0" * 64,
        seconds=1.0,
        samples_per_second=10.0,
        workers=2,
        recoveries=0,
        gradient_noise=GradientNoise(None, None, None, ()),
    )
    with opened(folder):
        folder.write_parameters(arrays)
        folder.write_summary(summary)
    loaded = load_file(tmp_path / "parameters.safetensors")
    assert {name: array.tobytes() for name, array in loaded.items()} == {
        name: a.tobytes() for name, a in arrays.items()
    }
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == as_json(summary)
    promised = [
        "state",
        "steps",
        "epochs",
        "train_loss",
        "validation",
        "parameters_sha256",
        "seconds",
        "samples_per_second",
    ]
    promised += ["workers", "recoveries", "gradient_noise"]
    assert set(promised) <= set(written)
    assert written["train_loss"] is None


def test_incidents_come_back_too(tmp_path):
    folder = RunFolder(tmp_path)
    incidents = [Incident(3, "lost", 1, "its connection closed"), Incident(3, "recovered", None, "", 4, 0.25)]
    with opened(folder):
        for incident in incidents:
            folder.append(incident)
        assert folder.read_metrics() == ([], [], incidents)
