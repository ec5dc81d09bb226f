"""Advice measured for real: Ray, workers that stay warm, short runs that leave nothing."""

import tempfile

import pytest

import shardsgd
from shardsgd import Control, InputError, InterruptedJobError, JobError, JobSpec
from shardsgd.coordinator.advice import measuring
from shardsgd.coordinator.advice.measuring import enough_noise, enough_steps
from shardsgd.coordinator.records import Silent

# Each run starts workers' programs anew; a busy machine takes seconds for each.
pytestmark = pytest.mark.timeout(400)

JOB = {"data": {"source": "iris"}, "model": {"hidden": [8]}, "workers": {"count": 2}}


def job(**changes):
    return JobSpec(**JOB | {"batch": {"size": 16}} | changes)


class Phases(Silent):
    """Keeps what the user is told, and can stop the run."""

    def __init__(self):
        self.phases, self.notes, self.control = [], [], Control()
        self.stop_at = None

    def phase(self, text):
        self.phases.append(text)
        if self.stop_at is not None and self.stop_at in text:
            self.control.stop()

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def short_turns(monkeypatch):
    monkeypatch.setattr(measuring, "_TURN_S", 0.01)
    monkeypatch.setattr(measuring, "_LEAST_STEPS", 3)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_noise_is_known_after_an_epoch_and_the_time_that_was_wanted_or_after_a_minute():
    assert not enough_noise([1.0] * 9, 3, 10.0)
    assert enough_noise([1.0] * 10, 1, 10.0)
    assert not enough_noise([1.0] * 59, 0, 10.0)
    assert enough_noise([1.0] * 60, 0, 10.0)
    assert not enough_noise([1.0] * 99, 0, 100.0)


def test_a_turn_is_over_after_ten_steps_and_a_while_the_first_steps_not_counted():
    assert not enough_steps([1.0] * 12)
    assert enough_steps([1.0] * 13)
    assert not enough_steps([100.0] * 3 + [0.01] * 70)
    assert enough_steps([0.1] * 3 + [15.0] * 2)


@pytest.mark.usefixtures("ray_session")
def test_every_choice_is_timed_and_the_runs_leave_nothing(scratch, short_turns, tmp_path):
    seen = Phases()
    advice = shardsgd.advise(job(), batches=[4], seconds=0.2, observer=seen)
    timed = [(choice.time.workers, choice.time.batch) for choice in advice.choices]
    assert timed == [(1, 4), (1, 16), (2, 4), (2, 16)]
    assert all(choice.time.steps >= 6 and choice.time.seconds > 0 for choice in advice.choices)
    assert (advice.present.time.batch, advice.present.time.workers) == (16, 2)
    assert "at B = 16" in advice.noise_from
    assert sum("timing steps" in phase for phase in seen.phases) == 8
    assert seen.phases.count("timing steps: B = 4 on 2 workers (1 of 8)") == 1
    assert seen.phases[-1] == "timing steps: B = 4 on 2 workers (8 of 8)"
    assert not any("report" in phase for phase in seen.phases)
    assert list(scratch.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


@pytest.mark.usefixtures("ray_session")
def test_no_more_workers_than_shards_are_timed_and_an_earlier_run_saves_the_training(scratch, short_turns, monkeypatch):
    monkeypatch.setattr(measuring, "_TURNS", 1)
    shardsgd.train(job(stop={"epochs": 1}), out="run")
    seen = Phases()
    advice = shardsgd.advise(job(), at="run", batches=[1], workers=[2], observer=seen)
    assert [(choice.time.workers, choice.time.batch) for choice in advice.choices] == [(1, 1), (2, 16)]
    assert advice.noise_from.startswith("run, ")
    assert seen.phases[0].startswith("timing steps")


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("moment", ["starting", "timing"])
def test_an_interruption_leaves_nothing_and_says_so(scratch, moment):
    seen = Phases()
    seen.stop_at = moment
    with pytest.raises(InterruptedJobError):
        shardsgd.advise(job(), seconds=0.1, observer=seen, control=seen.control)
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("ray_session")
def test_a_job_that_diverges_gets_no_advice_but_its_error(scratch):
    wild = job(optimizer={"learning_rate": 1e30}, objective={"loss": "softmax_cross_entropy", "l2": 1.0})
    with pytest.raises(JobError, match="diverged"):
        shardsgd.advise(wild, seconds=0.1)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": [0]}, "--batches 0: must be an integer from 1 to 120, the training rows"),
        ({"batches": [16, 121]}, "--batches 121"),
        ({"workers": [0]}, "--workers 0: must be an integer from 1 to 1024"),
        ({"seconds": 0.0}, "--seconds 0"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"at": "nowhere"}, "--at nowhere: no run here"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_started(arguments, message):
    seen = Phases()
    with pytest.raises(InputError, match=message):
        shardsgd.advise(job(), observer=seen, **arguments)
    assert seen.phases == []
