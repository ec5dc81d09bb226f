"""The command line as a user meets it: real processes, real Ray, real signals."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHARDSGD = Path(sys.executable).with_name("shardsgd")
EXAMPLES = Path(__file__).parents[2] / "examples"
CLEAN = {name: value for name, value in os.environ.items() if name not in ("NPROC", "PJRT_NPROC", "JAX_PLATFORMS")}

JOB = """
name = "small"
[data]
source = "iris"
[model]
hidden = [8]
[optimizer]
kind = "momentum"
[batch]
size = 30
[stop]
epochs = 4
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def shardsgd(*arguments, cwd=None, env=CLEAN):
    return subprocess.run(
        [SHARDSGD, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=env, timeout=100, check=False
    )


def ours_left_over() -> list[str]:
    """Processes and folders of Ray that belong to a run of ours, other than this test session's own."""
    own = f"shardsgd-ray-{os.getpid()}-"
    folders = [path.name for path in Path("/tmp").glob("shardsgd-ray-*") if not path.name.startswith(own)]
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "shardsgd-ray-" in line and own not in line:
                processes.append(line)
    return folders + processes


def test_training_ends_with_a_summary_its_files_and_no_noise(tmp_path):
    done = shardsgd("train", EXAMPLES / "digits.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for word in ("warning", "ray::", "raylet", "jax", "xla", "gcs"):
        assert word not in done.stdout.lower().replace("ray worker", ""), done.stdout
    folder = tmp_path / "runs/digits"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "SUCCEEDED"
    assert summary["validation"]["accuracy"] >= 0.95
    assert f"{summary['validation']['accuracy']:.2%}" in done.stdout
    names = {"job.toml", "metrics.jsonl", "parameters.safetensors", "summary.json", "report.html", "checkpoints"}
    assert {path.name for path in folder.iterdir()} == names
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "validation" not in line]
    assert [line["step"] for line in steps] == list(range(summary["steps"]))
    promised = "step epoch loss learning_rate gradient_norm noise_trace noise_scale step_seconds"
    assert all(set(line) == set(promised.split()) for line in steps)
    assert len(lines) - len(steps) == summary["epochs"]
    assert ours_left_over() == []


def test_json_prints_the_summary_and_nothing_else(job, tmp_path):
    done = shardsgd("train", job, "--json", "--workers", 1, "--set", "stop.epochs=1", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["workers"], summary["epochs"]) == (1, 1)


def test_wrong_input_ends_with_2_before_anything_is_started(job, tmp_path):
    job.write_text(JOB + "\n[workers]\ncount = 0\n[objective]\nlos = 'mse'\n")
    done = shardsgd("train", job, "--set", "seed=x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {job}: 3 problems\n")
    for field in ("workers.count = 0", 'objective.los = "mse"', 'seed = "x"'):
        assert field in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.toml"], "missing.toml: no such job file"),
        ([], "JOB.toml is missing"),
        (["JOB", "--set", "data.source=nowhere.csv"], "nowhere.csv"),
        (["JOB", "--set", "batch.size=1000"], "batch.size = 1000"),
        (["JOB", "--resume", "nowhere"], "nowhere"),
        (["--resume", "nowhere"], "--resume nowhere: no run to resume"),
        (["JOB", "--workers", "0"], "workers.count = 0: must be an integer, at least 1"),
        (["JOB", "--out", "/proc/nowhere"], "--out /proc/nowhere: cannot be written"),
    ],
)
def test_each_wrong_input_is_a_message_and_never_a_traceback(job, tmp_path, arguments, message):
    done = shardsgd("train", *[job if argument == "JOB" else argument for argument in arguments], cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert ours_left_over() == []


def test_a_failed_job_ends_with_1_says_why_and_keeps_the_last_finite_parameters(job, tmp_path):
    rate = ["--set", "optimizer.learning_rate=1e30", "--set", "objective.loss=squared_error"]
    done = shardsgd("train", job, "--json", "--out", tmp_path / "out", *rate)
    assert done.returncode == 1
    assert re.match(r"error: diverged in step \d+ at learning rate 1e\+30: ", done.stderr)
    assert json.loads(done.stdout)["state"] == "FAILED"
    assert (tmp_path / "out/parameters.safetensors").is_file()
    assert ours_left_over() == []


def endless(job: Path, out: Path, *more: str) -> subprocess.Popen:
    """A run that goes on until it is stopped, in a process group of its own like a shell's foreground job."""
    command = [SHARDSGD, "train", job, "--out", out, "--set", "stop.epochs=1000000", *more]
    return subprocess.Popen(
        [str(part) for part in command],
        env=CLEAN, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_steps(out: Path, count: int) -> None:
    """Blocks until metrics.jsonl has that many lines; the test's timeout is the limit."""
    while not (out / "metrics.jsonl").is_file() or (out / "metrics.jsonl").read_text().count("\n") < count:
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_checkpoint_and_resumes_to_the_same_bits(job, tmp_path, number):
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 30)
    # Ctrl-C reaches every process of the group; a polite kill only the one.
    os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "Traceback" not in stdout + stderr
    interrupted = json.loads((out / "summary.json").read_text())
    assert interrupted["state"] == "INTERRUPTED"
    assert list((out / "checkpoints").glob("*.safetensors"))
    assert ours_left_over() == []
    stop = ["--set", "stop.steps=" + str(interrupted["steps"] + 7), "--json"]
    resumed = shardsgd("train", "--resume", out, "--workers", 3, "--set", "stop.epochs=1000000", *stop)
    assert resumed.returncode == 0, resumed.stderr
    straight = shardsgd("train", job, "--out", tmp_path / "straight", "--set", "stop.epochs=1000000", *stop)
    resumed, straight = json.loads(resumed.stdout), json.loads(straight.stdout)
    for field in ("parameters_sha256", "steps", "train_loss", "validation", "gradient_noise"):
        assert resumed[field] == straight[field]
    untimed = [
        [{k: v for k, v in json.loads(line).items() if k != "step_seconds"} for line in path.read_text().splitlines()]
        for path in (out / "metrics.jsonl", tmp_path / "straight/metrics.jsonl")
    ]
    assert untimed[0] == untimed[1]


def test_ctrl_c_while_ray_starts_leaves_nothing_behind(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    while not (out / "job.toml").is_file():
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert ours_left_over() == []


def test_a_second_ctrl_c_stops_at_once_and_still_leaves_nothing_behind(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 5)
    os.killpg(run.pid, signal.SIGINT)
    assert "interrupted" in run.stderr.readline() + run.stderr.readline()
    os.killpg(run.pid, signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert ours_left_over() == []


def test_a_killed_run_leaves_no_process_and_the_next_run_sweeps_its_folder(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 5)
    run.kill()
    run.communicate(timeout=60)
    while any("shardsgd-ray-" in line and "/" in line for line in ours_left_over()):
        time.sleep(0.05)
    done = shardsgd("train", job, "--out", out, "--set", "stop.epochs=1")
    assert done.returncode == 0, done.stderr
    assert ours_left_over() == []


def test_output_into_a_closed_pipe_is_no_traceback(job, tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {SHARDSGD} train {job} --out {tmp_path}/out | true"],
        capture_output=True, text=True, env=CLEAN, timeout=100, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert ours_left_over() == []


def test_a_user_may_have_modules_named_like_ours(job, tmp_path):
    for name in ("model", "workers", "coordinator", "client", "protos"):
        (tmp_path / f"{name}.py").write_text('raise RuntimeError("a hostile module was imported")\n')
    done = shardsgd("train", job, "--json", "--set", "stop.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    script = "import shardsgd, sys; print(*(name for name in ('ray', 'jax', 'jaxlib') if name in sys.modules))"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert imported.stdout.strip() == "", "import shardsgd loads neither ray nor jax"


def test_help_and_version_name_what_there_is():
    assert "train" in shardsgd("--help").stdout
    options = shardsgd("train", "--help").stdout
    for option in ("--workers", "--set", "--out", "--resume", "--json"):
        assert option in options
    assert re.fullmatch(r"shardsgd \d+\.\d+\.\d+\n", shardsgd("--version").stdout)
