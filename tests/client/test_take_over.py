"""A run that was stopped, and another one in its place: real processes, real Ray."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fakes import toy_loop

from shardsgd import read_spec
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.training import make_problem
from shardsgd.model.layout import parameters_sha256

SHARDSGD = Path(sys.executable).with_name("shardsgd")
CLEAN = {name: value for name, value in os.environ.items() if name not in ("NPROC", "PJRT_NPROC", "JAX_PLATFORMS")}

JOB = """
[data]
source = "iris"
[model]
hidden = [8]
[optimizer]
kind = "momentum"
[batch]
size = 30
[stop]
steps = 1000000
[checkpoint]
every_seconds = 0.1
"""


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [SHARDSGD, "train", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN, start_new_session=True,
    )  # fmt: skip


def content(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def stop_outside_of_changes(run: subprocess.Popen, checkpoints: Path) -> None:
    """Stops a run, not in the middle of a change, where nobody could take over."""
    folder = os.open(checkpoints, os.O_RDONLY)
    # Whoever holds this lock is the only one to change the folder, and the run is not.
    fcntl.flock(folder, fcntl.LOCK_EX)
    run.send_signal(signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(run.pid, os.WUNTRACED)[1])
    os.close(folder)


def test_another_run_takes_over_from_one_that_was_stopped_and_ends_in_the_same_bits(tmp_path):
    (tmp_path / "job.toml").write_text(JOB)
    out = tmp_path / "out"
    stopped = start(tmp_path / "job.toml", "--out", out)
    try:
        # Until two checkpoints are kept; the test's timeout is the limit.
        while len(list((out / "checkpoints").glob("step-*.json"))) < 2:
            time.sleep(0.02)
        stop_outside_of_changes(stopped, out / "checkpoints")

        theirs = content(out)
        refused = start("--resume", out)
        _, stderr = refused.communicate(timeout=60)
        assert refused.returncode == 2
        assert f"another run is writing to this folder (incarnation 1, pid {stopped.pid} on" in stderr
        assert f"shardsgd train --resume {out} --take-over" in stderr
        assert content(out) == theirs

        newest = max(int(file.stem[5:]) for file in (out / "checkpoints").glob("step-*.json"))
        taker = start("--resume", out, "--take-over", "--set", f"stop.steps={newest + 9}", "--json")
        stdout, stderr = taker.communicate(timeout=60)
        assert taker.returncode == 0, stderr
        summary = json.loads(stdout)

        ours = content(out)
        stopped.send_signal(signal.SIGCONT)
        _, stderr = stopped.communicate(timeout=60)
        assert stopped.returncode == 1
        assert f"error: another run (incarnation 2, pid {taker.pid}) has taken over {out}" in stderr
        assert "Traceback" not in stderr
        assert content(out) == ours
    finally:
        stopped.kill()

    spec = read_spec(tmp_path / "job.toml")
    loop, _ = toy_loop(spec, load_dataset(spec), workers=1)
    losses = [loop.step().loss for _ in range(summary["steps"])]
    layout = make_problem(spec, load_dataset(spec)).layout
    assert summary["parameters_sha256"] == parameters_sha256(layout.views(loop.state.theta))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert steps == list(enumerate(losses))


def test_take_over_without_a_run_to_resume_is_refused(tmp_path):
    (tmp_path / "job.toml").write_text(JOB)
    run = start(tmp_path / "job.toml", "--out", tmp_path / "out", "--take-over")
    _, stderr = run.communicate(timeout=60)
    assert (run.returncode, "needs --resume DIR" in stderr) == (2, True)
    assert not (tmp_path / "out").exists()
