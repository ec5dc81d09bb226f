"""The command line as a user meets it: real processes, real Ray, real signals."""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import toy_loop

from shardsgd import read_spec
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.training import make_problem
from shardsgd.model.layout import parameters_sha256

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


def start(*arguments, cwd=None, under=()) -> subprocess.Popen:
    """A run in a process group of its own, like a shell's foreground job."""
    return subprocess.Popen(
        [*under, SHARDSGD, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=CLEAN, start_new_session=True,
    )  # fmt: skip


def finish(run: subprocess.Popen) -> subprocess.CompletedProcess:
    """Waits for a run to end, and checks that it ended without a traceback and left nothing behind."""
    try:
        stdout, stderr = (stream or "" for stream in run.communicate(timeout=60))
    except subprocess.TimeoutExpired:
        # A failed test must not slow down all that follow.
        run.kill()
        raise
    assert "Traceback" not in stdout + stderr
    assert left_over(run) == []
    return subprocess.CompletedProcess(run.args, run.returncode, stdout, stderr)


def shardsgd(*arguments, cwd=None) -> subprocess.CompletedProcess:
    """A run from start to end."""
    return finish(start(*arguments, cwd=cwd))


def left_over(run: subprocess.Popen) -> list[str]:
    """Folders and processes of the Ray that a run started."""
    own = f"shardsgd-ray-{run.pid}-"
    left = [str(path) for path in Path("/tmp").glob(f"{own}*")]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if own in line or own in (entry / "environ").read_bytes().decode(errors="replace"):
                left.append(f"{entry.name} {line}")
    return left


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
    # On a busy machine a worker may be late, which is an incident.
    lines = [line for line in lines if "incident" not in line]
    steps = [line for line in lines if "validation" not in line]
    assert [line["step"] for line in steps] == list(range(summary["steps"]))
    promised = "step epoch loss learning_rate gradient_norm noise_trace noise_scale step_seconds"
    promised += " noise_norm_squared noise_scale_low noise_scale_high gain layer_norms"
    parts = "gather_seconds leaf_seconds reduce_seconds exchange_seconds update_seconds idle_seconds"
    assert all(set(line) == {*promised.split(), *parts.split()} for line in steps)
    assert all(line[part] is not None for line in steps for part in parts.split())
    assert steps[-1]["noise_scale_low"] < (steps[-1]["noise_scale_high"] or math.inf)
    assert math.hypot(*steps[-1]["layer_norms"].values()) == pytest.approx(steps[-1]["gradient_norm"], rel=1e-12)
    noise = summary["gradient_noise"]
    assert noise["noise_scale_low"] == steps[-1]["noise_scale_low"]
    assert noise["noise_trace_low"] < noise["noise_trace"] < noise["noise_trace_high"]
    assert "Where the time went" in (folder / "report.html").read_text()
    assert len(lines) - len(steps) == summary["epochs"]


def test_json_prints_the_summary_and_nothing_else_also_beside_modules_named_like_ours(job, tmp_path):
    for name in ("model", "workers", "coordinator", "client", "protos"):
        (tmp_path / f"{name}.py").write_text('raise RuntimeError("a hostile module was imported")\n')
    done = shardsgd("train", job, "--json", "--workers", 1, "--set", "stop.epochs=1", "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["workers"], summary["epochs"]) == (1, 1)
    script = "import shardsgd, sys; print(*(name for name in ('ray', 'jax', 'jaxlib') if name in sys.modules))"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert imported.stdout.strip() == "", "import shardsgd loads neither ray nor jax"


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
        (["JOB", "--set", "batch.size=1000", "--json", "--out", "old"], "batch.size = 1000"),
        (["JOB", "--resume", "nowhere"], "nowhere"),
        (["--resume", "nowhere"], "--resume nowhere: no run to resume"),
        (["JOB", "--workers", "0"], "workers.count = 0: must be an integer, at least 1"),
        (["JOB", "--out", "/proc/nowhere"], "--out /proc/nowhere: cannot be written"),
    ],
)
def test_each_wrong_input_is_a_message_and_never_a_traceback(job, tmp_path, arguments, message):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text('{"state": "SUCCEEDED"}')
    done = shardsgd("train", *[job if argument == "JOB" else argument for argument in arguments], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.replace("\n", " ")


def test_a_failed_job_ends_with_1_says_why_and_keeps_the_last_finite_parameters(job, tmp_path):
    rate = ["--set", "optimizer.learning_rate=1e30", "--set", "objective.loss=squared_error"]
    done = shardsgd("train", job, "--json", "--out", tmp_path / "out", *rate)
    assert done.returncode == 1
    assert re.match(r"error: diverged in step \d+ at learning rate 1e\+30: ", done.stderr)
    assert json.loads(done.stdout)["state"] == "FAILED"
    assert (tmp_path / "out/parameters.safetensors").is_file()


def endless(job: Path, out: Path) -> subprocess.Popen:
    """A run that goes on until it is stopped."""
    return start("train", job, "--out", out, "--set", "stop.epochs=1000000")


def wait_for_steps(out: Path, count: int) -> None:
    """Blocks until metrics.jsonl has that many lines; the test's timeout is the limit."""
    while not (out / "metrics.jsonl").is_file() or (out / "metrics.jsonl").read_text().count("\n") < count:
        time.sleep(0.02)


def test_ctrl_c_leaves_a_checkpoint_from_which_the_run_ends_in_the_same_bits(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 30)
    # Ctrl-C reaches every process of the group.
    os.killpg(run.pid, signal.SIGINT)
    assert finish(run).returncode == 130
    interrupted = json.loads((out / "summary.json").read_text())
    assert interrupted["state"] == "INTERRUPTED"
    assert list((out / "checkpoints").glob("*.safetensors"))
    steps = interrupted["steps"] + 7
    resumed = shardsgd("train", "--resume", out, "--workers", 3, "--set", f"stop.steps={steps}", "--json")
    assert resumed.returncode == 0, resumed.stderr

    spec = read_spec(job)
    loop, _ = toy_loop(spec, load_dataset(spec), workers=1)
    losses = [loop.step().loss for _ in range(steps)]
    sha = parameters_sha256(make_problem(spec, load_dataset(spec)).layout.views(loop.state.theta))
    assert json.loads(resumed.stdout)["parameters_sha256"] == sha
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == list(enumerate(losses))


def test_a_polite_kill_is_an_interruption_too(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 5)
    run.terminate()
    assert finish(run).returncode == 130
    assert json.loads((out / "summary.json").read_text())["state"] == "INTERRUPTED"


def test_ctrl_c_while_ray_starts_leaves_nothing_behind(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    while not (out / "job.toml").is_file():
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    assert finish(run).returncode == 130


def test_an_impatient_user_tears_nothing(job, tmp_path):
    """Signals go on coming, through the checkpoint, the report and the end of Ray."""
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 5)
    while run.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.1)
    assert finish(run).returncode == 130
    assert json.loads((out / "summary.json").read_text())["state"] == "INTERRUPTED"
    assert (out / "report.html").is_file()


def test_a_run_under_nohup_outlives_its_terminal(job, tmp_path):
    run = start("train", job, "--out", tmp_path / "out", "--json", under=("nohup",))
    wait_for_steps(tmp_path / "out", 1)
    run.send_signal(signal.SIGHUP)
    done = finish(run)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "SUCCEEDED")


def test_ctrl_c_before_anything_is_started_is_no_traceback(tmp_path):
    (tmp_path / "rows.csv").write_text("a,label\n" + "1.5,x\n2.5,y\n" * 2_000_000)
    (tmp_path / "job.toml").write_text('[data]\nsource = "rows.csv"\n')
    run = start("train", tmp_path / "job.toml", cwd=tmp_path)
    # The library that reads CSV is loaded: reading begins.
    while "libarrow" not in Path(f"/proc/{run.pid}/maps").read_text():
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    done = finish(run)
    assert done.returncode == 130
    assert not (tmp_path / "runs").exists()


def test_a_killed_run_leaves_no_process_and_the_next_run_sweeps_its_folder(job, tmp_path):
    out = tmp_path / "out"
    run = endless(job, out)
    wait_for_steps(out, 5)
    run.kill()
    run.communicate(timeout=60)
    folder = f"/tmp/shardsgd-ray-{run.pid}-"
    while any(not line.startswith(folder) for line in left_over(run)):
        time.sleep(0.05)
    done = shardsgd("train", job, "--out", out, "--set", "stop.epochs=1")
    assert done.returncode == 0, done.stderr
    assert left_over(run) == [], "the folder of a killed run is swept by the next"


def test_output_into_a_closed_pipe_is_no_traceback(job, tmp_path):
    run = start("train", job, "--out", tmp_path / "out", "--set", "stop.epochs=1")
    run.stdout.close()
    run.stdout = None
    done = finish(run)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_and_version_name_what_there_is():
    assert "train" in shardsgd("--help").stdout
    options = shardsgd("train", "--help").stdout
    for option in ("--workers", "--set", "--out", "--resume", "--json"):
        assert option in options
    assert re.fullmatch(r"shardsgd \d+\.\d+\.\d+\n", shardsgd("--version").stdout)
