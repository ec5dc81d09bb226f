"""`shardsgd advise` as a user meets it: real processes, real Ray, real signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)

SHARDSGD = Path(sys.executable).with_name("shardsgd")
CLEAN = {name: value for name, value in os.environ.items() if name not in ("NPROC", "PJRT_NPROC", "JAX_PLATFORMS")}

JOB = """
name = "small"
[data]
source = "iris"
[model]
hidden = [8]
[batch]
size = 16
"""
QUICK = ("--seconds", "0.5", "--batches", "64", "--workers", "2")


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def start(*arguments, scratch):
    return subprocess.Popen(
        [SHARDSGD, "advise", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN | {"TMPDIR": str(scratch)}, start_new_session=True,
    )  # fmt: skip


def finish(run, scratch):
    stdout, stderr = (stream or "" for stream in run.communicate(timeout=300))
    assert "Traceback" not in stdout + stderr
    assert [path.name for path in scratch.iterdir() if "advice" in path.name] == []
    return run.returncode, stdout, stderr


def test_the_advice_is_a_table_and_sentences_and_a_file(job, scratch, tmp_path):
    code, stdout, stderr = finish(start(job, *QUICK, "--out", tmp_path / "out", scratch=scratch), scratch)
    assert (code, stderr) == (0, "")
    assert "Noise scale tr Σ/|G|²" in stdout
    for heading in ("workers", "ms a step", "efficiency", "goodput"):
        assert heading in stdout
    advice = json.loads((tmp_path / "out/advice.json").read_text())
    assert advice["verdict"] in ("change", "keep", "cannot tell")
    assert [choice["time"]["batch"] for choice in advice["choices"]] == [16, 64]
    assert " ".join(advice["advice"]) in " ".join(stdout.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.toml", "out", "scratch"]


def test_json_prints_all_of_it_and_nothing_else(job, scratch):
    code, stdout, stderr = finish(start(job, *QUICK, "--json", scratch=scratch), scratch)
    assert (code, stderr) == (0, "")
    advice = json.loads(stdout)
    assert advice["noise"].keys() == {"rows", "low", "high"}
    assert advice["present"]["time"]["workers"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "64;128"], "--batches 64;128: must be integers with commas"),
        (["--batches", "1000"], "--batches 1000: must be an integer from 1 to 120"),
        (["--workers", "x"], "--workers x: must be integers"),
        (["--set", "batch.size=0"], "batch.size = 0"),
        (["--at", "nowhere"], "--at nowhere: no run here"),
    ],
)
def test_wrong_input_ends_with_2_and_a_message(job, scratch, arguments, message):
    code, stdout, stderr = finish(start(job, *arguments, scratch=scratch), scratch)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert message in stderr


def test_an_interruption_ends_with_130_and_leaves_nothing(job, scratch):
    run = start(job, scratch=scratch)
    for line in run.stdout:
        if "timing steps" in line:
            run.send_signal(signal.SIGINT)
            break
    code, _, stderr = finish(run, scratch)
    assert code == 130
    assert "no advice" in stderr
    assert list(Path("/tmp").glob(f"shardsgd-ray-{run.pid}-*")) == []
