"""Whole measurements over real Ray workers: the same bytes whoever computes, files, interruptions."""

import csv
import itertools
import json
from pathlib import Path

import pytest

import shardsgd
from shardsgd import Control, InputError, InterruptedJobError, JobError, JobSpec
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.variance.files import VarianceFolder
from shardsgd.coordinator.variance.records import Unobserved
from shardsgd.coordinator.variance.run import run_variance
from shardsgd.workers.faults import Fault, FaultPlan, fired

pytestmark = pytest.mark.usefixtures("ray_session")

DIGITS = {"data": {"source": "digits"}, "model": {"hidden": [8]}, "objective": {"l2": 1e-3}, "batch": {"size": 64}}
BATCHES, REPEATS = (1, 20, 300, 1438), 12


class Notes(Unobserved):
    """Keeps what the user is told."""

    def __init__(self):
        self.notes, self.steps = [], []

    def note(self, text):
        self.notes.append(text)

    def progress(self, done, total, doing):
        self.steps.append((done, total, doing))


def measure(out, *, faults=None, observer=None, control=None, **workers):
    spec = JobSpec(**DIGITS, workers=workers).resolved()
    return run_variance(
        spec,
        load_dataset(spec),
        VarianceFolder(Path(out)),
        observer or Unobserved(),
        control=control or Control(),
        batches=BATCHES,
        repeats=REPEATS,
        faults=faults,
    )


def files(out):
    return [(Path(out) / name).read_bytes() for name in ("variance.json", "variance.csv")]


@pytest.fixture(scope="module")
def alone(ray_session, tmp_path_factory):
    """The files of a measurement by one worker."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert measure(out, count=1).error is None
    return files(out)


@pytest.mark.parametrize(("exchange", "count"), [*itertools.product(("shared_memory", "ray"), (1, 2, 3))])
def test_one_to_three_workers_on_every_exchange_give_the_same_bytes(alone, exchange, count):
    assert measure("out", count=count, exchange=exchange).error is None
    assert files("out") == alone


@pytest.mark.parametrize("exchange", ["shared_memory", "ray"])
def test_workers_that_are_killed_cost_no_bit(alone, exchange, tmp_path):
    """In the middle of the gradient of all rows, of batches, and of batches again."""
    declared = (
        Fault("kill", at=0, point="before reply", worker=1),
        Fault("kill", at=3, point="before compute", worker=0, during="distances"),
        Fault("kill", at=5, point="before reply", during="distances"),
    )
    plan, observer = FaultPlan(declared, tmp_path), Notes()
    assert measure("out", count=2, exchange=exchange, faults=plan, observer=observer).error is None
    assert files("out") == alone
    assert [each.fault for each in fired(plan)] == list(declared)
    assert sum(" lost: " in note for note in observer.notes) >= 2


def test_the_files_say_what_was_measured(alone):
    observer = Notes()
    spec = JobSpec(**DIGITS)
    result = shardsgd.variance(spec, batches=BATCHES, repeats=REPEATS, out="out", observer=observer)
    assert files("out") == alone
    assert {path.name for path in Path("out").iterdir()} == {"job.toml", "variance.csv", "variance.json", "report.html"}
    found = json.loads(Path("out/variance.json").read_text())
    assert (found["state"], found["rows"], found["repeats"], found["seed"], found["step"]) == (
        "SUCCEEDED", 1438, REPEATS, 0, 0,
    )  # fmt: skip
    law = result.variance.law
    for name in ("trace_exact", "gradient_norm_squared", "slope", "slope_ci_low", "slope_ci_high", "noise_scale"):
        assert found[name] == getattr(law, name)
    assert found["trace_exact"] == pytest.approx(sum(layer["trace_exact"] for layer in found["layers"]), rel=1e-12)
    names = ["layer0.weight", "layer0.bias", "layer1.weight", "layer1.bias"]
    assert [layer["name"] for layer in found["layers"]] == names
    with Path("out/variance.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["sampling", "batch", "repeats", "measured", "ci_low", "ci_high", "predicted"]
    ways = ("with_replacement", "without_replacement")
    assert [(line["sampling"], int(line["batch"])) for line in lines] == [(way, b) for b in BATCHES for way in ways]
    assert [{k: v if k == "sampling" else float(v) for k, v in line.items()} for line in lines] == found["cells"]
    for cell in found["cells"]:
        assert cell["ci_low"] <= cell["measured"] <= cell["ci_high"]
        assert sum(layer["cells"][found["cells"].index(cell)]["measured"] for layer in found["layers"]) == (
            pytest.approx(cell["measured"], rel=1e-9)
        )
    rows = 2 * 1438 + 2 * REPEATS * sum(BATCHES)
    assert observer.steps[-1][:2] == (rows, rows)
    assert [done for done, *_ in observer.steps] == sorted(done for done, *_ in observer.steps)
    assert f"{rows:,} gradients of rows" in observer.notes[0]


def test_at_a_run_it_is_the_runs_parameters_that_are_measured():
    spec = JobSpec(**DIGITS, stop={"steps": 9})
    shardsgd.train(spec, out="run")
    options = {"batches": [1, 8], "repeats": 4}
    later = shardsgd.variance(spec, at="run", **options, out="later").variance
    assert later.step == 9
    start = shardsgd.variance(spec, **options, out="start").variance
    assert later.law.gradient_norm_squared != start.law.gradient_norm_squared
    # No checkpoint any more: the same parameters.
    for path in Path("run/checkpoints").glob("step-*"):
        path.unlink()
    assert shardsgd.variance(spec, at="run", **options, out="again").variance == later


class InterruptAt(Notes):
    """Interrupts as soon as something is begun."""

    def __init__(self, doing):
        super().__init__()
        self._doing, self.raised = doing, False

    def progress(self, done, total, doing):
        super().progress(done, total, doing)
        self.raised = self.raised or doing.startswith(self._doing)


def test_an_interrupt_keeps_what_was_measured(alone):
    observer = InterruptAt("batches of 300 rows with r")
    outcome = measure("out", count=2, observer=observer, control=Control(lambda: observer.raised))
    assert isinstance(outcome.error, InterruptedJobError)
    assert str(outcome.error) == "interrupted after 4 of 8 cells; what was measured is in out"
    assert outcome.variance.state == "INTERRUPTED"
    found, whole = (json.loads(text) for text in (files("out")[0], alone[0]))
    assert found["cells"] == whole["cells"][:4]
    assert found["trace_exact"] == whole["trace_exact"]
    assert found["slope"] is not None
    assert b"interrupted after 4 of 8 cells" in Path("out/report.html").read_bytes()


@pytest.mark.parametrize("doing", ["the gradient", "tr"])
def test_an_interrupt_before_anything_is_measured_leaves_no_numbers(doing):
    observer = InterruptAt(doing)
    with pytest.raises(InterruptedJobError, match="interrupted before anything was measured"):
        measure("out", count=1, observer=observer, control=Control(lambda: observer.raised))
    assert {path.name for path in Path("out").iterdir()} == {"job.toml"}


def test_a_failure_keeps_what_was_measured(tmp_path):
    faults = (Fault("kill", at=5, worker=0, during="distances", point="before compute"),)
    outcome = measure("out", count=1, faults=FaultPlan(faults, tmp_path), max_losses=0)
    assert isinstance(outcome.error, JobError)
    assert "workers.max_losses = 0" in str(outcome.error)
    found = json.loads(files("out")[0])
    assert found["state"] == "FAILED"
    assert len(found["cells"]) == 2


def test_a_training_runs_folder_is_not_written_to():
    Path("run/checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--out run: holds a training run \(checkpoints\); accepted: another folder"):
        measure("run", count=1)
    assert [path.name for path in Path("run").iterdir()] == ["checkpoints"]


def test_two_measurements_do_not_share_a_folder():
    folder, spec = VarianceFolder(Path("out")), JobSpec(**DIGITS)
    with (
        folder.claimed(spec),
        pytest.raises(InputError, match="--out out: another measurement is writing to this folder"),
    ):
        measure("out", count=1)
    with folder.claimed(spec):
        pass


def test_more_workers_than_batches_are_not_started():
    observer, spec = Notes(), JobSpec(data={"source": "iris"}, workers={"count": 5}, batch={"size": 20})
    shardsgd.variance(spec, batches=[2], repeats=3, observer=observer)
    assert "5 workers asked for, 3 used: one for each of the 3 batches" in observer.notes
    assert Path("runs/job-variance/variance.json").is_file()
