"""`shardsgd variance` as a user meets it: real processes, real Ray, real signals."""

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
CLEAN = {name: value for name, value in os.environ.items() if name not in ("NPROC", "PJRT_NPROC", "JAX_PLATFORMS")}

pytestmark = pytest.mark.timeout(400)

JOB = """
name = "small"
[data]
source = "iris"
[model]
hidden = [8]
[batch]
size = 30
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


@pytest.fixture(autouse=True)
def _nothing_goes_on():
    """What a failed test has left running would slow down all that follow."""
    yield
    for run in RUNS:
        with run:
            run.kill()
    RUNS.clear()


RUNS = []


def start(*arguments):
    run = subprocess.Popen(
        [SHARDSGD, "variance", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN, start_new_session=True,
    )  # fmt: skip
    RUNS.append(run)
    return run


def finish(run):
    try:
        stdout, stderr = run.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        run.kill()
        raise
    assert "Traceback" not in stdout + stderr
    assert list(Path("/tmp").glob(f"shardsgd-ray-{run.pid}-*")) == []
    return subprocess.CompletedProcess(run.args, run.returncode, stdout, stderr)


def variance(*arguments):
    return finish(start(*arguments))


def test_a_measurement_ends_with_tables_its_files_and_no_noise(job):
    done = variance(job, "--batches", "1, 4,120", "--repeats", 5, "--workers", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for word in ("warning", "ray::", "raylet", "jax", "xla"):
        assert word not in done.stdout.lower().replace("ray worker", ""), done.stdout
    first = done.stdout.splitlines()[0]
    assert first == (
        "120 rows; 3 batch sizes, each drawn 5 times with and as often without replacement: 1,490 gradients of rows"
    )
    for text in ("E‖g_B − g‖²", "layer1.weight", "tr Σ", "slope", "runs/small-variance", "all 6 cells are measured"):
        assert text in done.stdout
    folder = Path("runs/small-variance")
    assert {path.name for path in folder.iterdir()} == {"job.toml", "variance.csv", "variance.json", "report.html"}


def test_json_prints_the_object_and_nothing_else(job):
    done = variance(job, "--json", "--batches", 2, "--repeats", 2, "--out", "out", "--set", "seed=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == Path("out/variance.json").read_text()
    assert json.loads(done.stdout)["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "1,x"], "--batches 1,x: accepted: whole numbers with commas between them"),
        (
            ["--batches", "1,121,0"],
            "--batches (batches): 0, 121; accepted: batch sizes from 1 to the 120 training rows",
        ),
        (["--repeats", "1"], "--repeats (repeats) = 1: accepted: 2 or more"),
        (["--at", "nowhere"], "--at nowhere: no run here (no job.toml)"),
        (["--set", "data.source=nowhere.csv"], "nowhere.csv"),
        (["--workers", "0"], "workers.count = 0"),
        (["--out", "job.toml"], "--out job.toml: cannot be written"),
    ],
)
def test_wrong_input_ends_with_2_before_anything_is_started(job, arguments, message):
    done = variance(job, "--json", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not Path("runs").exists()


def test_a_missing_job_file_is_named():
    done = variance("missing.toml")
    assert done.returncode == 2
    assert "missing.toml: no such job file" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured_and_ends_with_130(job, number):
    """Progress is told every 5 seconds, and these many batches take longer."""
    run = start(job, "--batches", "1,120", "--repeats", 20_000, "--out", "out")
    lines = []
    while not any("batches of 120 rows" in line for line in lines):
        lines.append(run.stdout.readline())
        assert lines[-1], "it ended too soon"
    os.kill(run.pid, number)
    done = finish(run)
    assert done.returncode == 130
    told = re.search(r"interrupted after (2|3) of 4 cells; what was measured is in out", done.stderr)
    found = json.loads(Path("out/variance.json").read_text())
    assert found["state"] == "INTERRUPTED"
    assert [cell["batch"] for cell in found["cells"]] == [1, 1, 120][: int(told[1])]
    assert Path("out/report.html").stat().st_size > 10_000
    assert len(Path("out/variance.csv").read_text().splitlines()) == 1 + int(told[1])


def test_an_interrupt_before_anything_is_measured_prints_nothing_old(job):
    Path("out").mkdir()
    Path("out/variance.json").write_text("{}")
    run = start(job, "--json", "--out", "out")
    while not Path("out/job.toml").exists():
        time.sleep(0.005)
        assert run.poll() is None
    os.kill(run.pid, signal.SIGINT)
    done = finish(run)
    assert done.returncode == 130
    if "interrupted before anything was measured" in done.stderr:
        assert done.stdout == ""


def test_importing_loads_neither_ray_nor_jax():
    script = (
        "import shardsgd, sys; shardsgd.variance; print(*(n for n in ('ray', 'jax', 'jaxlib') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
