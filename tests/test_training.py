"""Whole runs through the library, over real Ray workers: bits, closed forms, an independent reference."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FirstWorkers, toy_rounds
from safetensors.numpy import load_file
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression

import shardsgd
from shardsgd import Control, InterruptedJobError, JobError, JobSpec, ResumeError
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.opening import open_exchange
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.records import Silent, as_json
from shardsgd.coordinator.training import make_problem
from shardsgd.workers.environment import WORKER_ENVIRONMENT
from shardsgd.workers.pool import WorkerPool

pytestmark = pytest.mark.usefixtures("ray_session")

DIGITS = {
    "data": {"source": "digits"},
    "model": {"hidden": [32]},
    "optimizer": {"kind": "momentum"},
    "objective": {"l2": 1e-4},
}
CANCER = {
    "data": {"source": "breast_cancer"},
    "model": {"kind": "linear"},
    "objective": {"loss": "logistic", "l2": 1e-3},
    "schedule": {"kind": "polynomial", "power": 0.5},
}


def run(fields, *, out="out", resume=False, interrupt_in=None, **sections):
    spec = JobSpec(**fields | sections)
    if interrupt_in is None:
        return shardsgd.train(spec, out=out, resume=resume)
    interrupt = InterruptIn(interrupt_in)
    return shardsgd.train(spec, out=out, resume=resume, observer=interrupt, control=Control(interrupt))


class InterruptIn(Silent):
    """Interrupts in the middle of a step: the flag goes up when the step before is done, and the step's round polls it."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._last = -1

    def step(self, record, pace):
        self._last = record.step

    def __call__(self) -> bool:
        return self._last + 1 >= self._step


class Notes(Silent):
    """Keeps what the user is told."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text):
        self._notes.append(text)


@pytest.mark.parametrize(
    ("kind", "fields", "sampling", "size", "precision"),
    [
        ("shared_memory", DIGITS, "shuffle", 250, "float32"),
        ("ray", DIGITS, "replacement", 250, "float64"),
        ("ray", CANCER, "shuffle", 101, "float64"),
        ("shared_memory", CANCER, "replacement", 101, "float32"),
    ],
)
def test_one_to_five_workers_give_the_same_bits(kind, fields, sampling, size, precision):
    batch = {"size": size, "shards": 8, "sampling": sampling, "precision": precision}
    spec = JobSpec(**fields | {"batch": batch}).resolved()
    dataset = load_dataset(spec)
    problem = make_problem(spec, dataset)
    pool = WorkerPool(problem, dataset.shards, dataset.validation, workers=5, environment=WORKER_ENVIRONMENT)
    exchange = open_exchange(kind, pool, problem)
    results = set()
    for count in (1, 2, 3, 4, 5):
        some = FirstWorkers(exchange, count)
        state = initial_state(problem, spec.seed)
        loop = StepLoop(problem, learning_rates(spec), some, toy_rounds(some), lambda: 0.0, state)
        steps = [vars(loop.step()) for _ in range(9)]
        # All but the times, which are the workers' own.
        records = [{name: value for name, value in step.items() if "seconds" not in name} for step in steps]
        results.add((loop.state.theta.tobytes(), loop.evaluate("train"), loop.evaluate("validation"), repr(records)))
    exchange.close()
    pool.close()
    assert len(results) == 1


@pytest.mark.parametrize(("fields", "step"), [(DIGITS, 7), (CANCER, 15)])
def test_a_run_interrupted_in_the_middle_of_a_step_and_resumed_on_other_workers_ends_in_the_same_bits(fields, step):
    job = functools.partial(run, fields, batch={"size": 101, "shards": 8}, stop={"steps": 17})
    straight = job(out="straight", workers={"count": 1}).summary
    with pytest.raises(InterruptedJobError) as caught:
        job(workers={"count": 2}, interrupt_in=step)
    interrupted = json.loads(Path("out/summary.json").read_text())
    assert interrupted == as_json(caught.value.summary)
    assert (interrupted["state"], interrupted["steps"]) == ("INTERRUPTED", step)
    resumed = job(workers={"count": 3}, resume=True).summary
    for name in ("parameters_sha256", "steps", "train_loss", "validation", "gradient_noise"):
        assert getattr(resumed, name) == getattr(straight, name)


def test_the_written_parameters_are_the_returned_ones_and_have_the_written_hash():
    result = run(DIGITS, stop={"steps": 3})
    written = load_file("out/parameters.safetensors")
    assert {name: array.tobytes() for name, array in written.items()} == {
        name: array.tobytes() for name, array in result.parameters.items()
    }
    assert written["layer0.weight"].shape == (64, 32)
    assert json.loads(Path("out/summary.json").read_text())["parameters_sha256"] == result.summary.parameters_sha256


def test_full_batch_descent_on_diabetes_follows_the_closed_form_at_every_step():
    """MATH.md: w_{t+1} − w* = (I − (2η/n) XᵀX)(w_t − w*), here with a column of ones for the bias."""
    rate, steps = 0.05, 60
    features = load_diabetes(return_X_y=True)[0]
    spec = JobSpec(
        data={"source": "diabetes", "validation": 0.0},
        model={"kind": "linear"},
        objective={"loss": "squared_error"},
        optimizer={"kind": "sgd", "learning_rate": rate},
        batch={"size": len(features), "precision": "float64"},
        workers={"count": 3},
    ).resolved()
    dataset = load_dataset(spec)
    x = np.concatenate([shard for shard, _ in dataset.shards])
    y = np.concatenate([labels for _, labels in dataset.shards])
    x = np.column_stack([x, np.ones(len(x))])
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    contraction = np.eye(x.shape[1]) - 2 * rate / len(x) * x.T @ x

    problem = make_problem(spec, dataset)
    empty = (dataset.shards[0][0][:0], dataset.shards[0][1][:0])
    pool = WorkerPool(problem, dataset.shards, empty, workers=3, environment=WORKER_ENVIRONMENT)
    exchange = open_exchange("auto", pool, problem)
    loop = StepLoop(
        problem, learning_rates(spec), exchange, toy_rounds(exchange), lambda: 0.0, initial_state(problem, 0)
    )

    def weights():
        views = problem.layout.views(loop.state.theta)
        return np.concatenate([views["layer0.weight"][:, 0], views["layer0.bias"]])

    expected = weights() - best
    for _ in range(steps):
        record = loop.step()
        residual = x @ (expected + best) - y
        assert record.loss == pytest.approx(np.mean(residual**2), rel=1e-9)
        expected = contraction @ expected
        assert np.linalg.norm(weights() - best - expected) <= 1e-9 * np.linalg.norm(expected)
    exchange.close()
    pool.close()


def test_logistic_regression_with_l2_reaches_scikit_learns_optimum():
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    l2 = 1e-2
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-12, max_iter=10000).fit(x, y)
    margins = (2 * y - 1) * reference.decision_function(x)
    optimum = np.mean(np.logaddexp(0, -margins)) + l2 / 2 * np.sum(reference.coef_**2)
    result = run(
        CANCER,
        data={"source": "breast_cancer", "validation": 0.0},
        objective={"loss": "logistic", "l2": l2},
        optimizer={"kind": "momentum", "momentum": 0.9, "learning_rate": 0.3},
        schedule={"kind": "constant"},
        batch={"size": len(x), "precision": "float64"},
        stop={"tolerance": 1e-9, "steps": 1500},
    )
    assert result.summary.train_loss == pytest.approx(optimum, abs=1e-6)
    assert "tolerance" in result.summary.reason


def test_a_finished_run_may_be_continued_past_its_stop_rule():
    run(DIGITS, stop={"steps": 5})
    continued = run(DIGITS, stop={"steps": 9}, resume=True)
    assert (
        continued.summary.parameters_sha256 == run(DIGITS, stop={"steps": 9}, out="straight").summary.parameters_sha256
    )


def test_resuming_as_another_job_or_on_other_data_is_refused(tmp_path):
    rows = np.column_stack([np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2])
    np.save(tmp_path / "rows.npy", rows)
    fields = {"data": {"source": "rows.npy"}, "model": {"hidden": [4]}, "batch": {"size": 16}}
    run(fields, stop={"steps": 3})
    with pytest.raises(ResumeError, match=r"seed was 0, is 1; batch\.size was 16, is 20"):
        run(fields | {"batch": {"size": 20}}, seed=1, resume=True)
    assert run(fields, stop={"steps": 4}, resume=True).summary.steps == 4
    rows[0, 0] += 1
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(ResumeError, match=r"the data of .*rows\.npy has changed"):
        run(fields, resume=True)
    with pytest.raises(ResumeError, match="no run to resume"):
        run(fields, resume=True, out="elsewhere")


def test_a_run_that_ended_before_its_first_checkpoint_begins_again():
    straight = run(DIGITS, stop={"steps": 3}).summary.parameters_sha256
    for path in Path("out/checkpoints").iterdir():
        path.unlink()
    assert run(DIGITS, stop={"steps": 3}, resume=True).summary.parameters_sha256 == straight


def test_replacing_an_unfinished_run_is_said():
    notes = []
    with pytest.raises(InterruptedJobError):
        run(DIGITS, interrupt_in=2)
    spec = JobSpec(**DIGITS | {"stop": {"steps": 2}})
    shardsgd.train(spec, out="out", observer=Notes(notes))
    shardsgd.train(spec, out="out", observer=Notes(notes))
    assert notes == ["out held an unfinished run, which --resume would have continued; it is replaced"]


def test_a_cluster_too_small_for_the_workers_is_refused_with_the_numbers():
    with pytest.raises(JobError, match=r"workers\.count = 40: each takes a CPU, and this Ray cluster has 16 in all"):
        run(DIGITS, workers={"count": 40}, batch={"shards": 64})


def test_an_interrupt_before_the_first_step_leaves_a_run_to_resume():
    with pytest.raises(InterruptedJobError, match="before the first step"):
        shardsgd.train(JobSpec(**DIGITS), out="out", control=Control(lambda: True))


def test_more_workers_than_shards_are_not_started():
    notes = []
    spec = JobSpec(**DIGITS | {"batch": {"shards": 2}, "workers": {"count": 4}, "stop": {"steps": 2}})
    result = shardsgd.train(spec, out="out", observer=Notes(notes))
    assert result.summary.workers == 2
    assert notes == ["4 workers asked for, 2 used: one for each of the 2 shards"]
