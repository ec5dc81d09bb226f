"""The job spec: its spellings agree, and whatever is wrong is said at once."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd import InputError, JobSpec, SpecError, read_spec
from shardsgd.spec_files import spec_toml

DIGITS = """
name = "digits-mlp"
seed = 3
[workers]
count = 4
[data]
source = "digits"
validation = 0.25
[model]
hidden = [128, 64]
[objective]
l2 = 1e-4
[optimizer]
kind = "momentum"
learning_rate = 1
[schedule]
kind = "polynomial"
power = 0.5
[batch]
size = 100
[stop]
epochs = 3
patience = 2
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(DIGITS)
    return path


def problems_of(**fields):
    with pytest.raises(SpecError) as caught:
        JobSpec(**fields)
    return {problem.path: problem for problem in caught.value.problems}


def test_toml_overrides_and_keywords_spell_the_same_spec(job):
    keywords = JobSpec(
        name="digits-mlp",
        seed=3,
        workers={"count": 4},
        data={"source": "digits", "validation": 0.25},
        model={"hidden": [128, 64]},
        objective={"l2": 1e-4},
        optimizer={"kind": "momentum", "learning_rate": 1.0},
        schedule={"kind": "polynomial", "power": 0.5},
        batch={"size": 100},
        stop={"epochs": 3, "patience": 2},
    )
    assert read_spec(job) == keywords
    minimal = job.with_name("minimal.toml")
    minimal.write_text('[data]\nsource = "iris"\n')
    overrides = [
        "name=digits-mlp",
        "seed = 3",
        "workers.count=4",
        "data.source=digits",
        "data.validation=0.25",
        "model.hidden=[128, 64]",
        "objective.l2=1e-4",
        'optimizer.kind="momentum"',
        "optimizer.learning_rate=1",
        "schedule.kind=polynomial",
        "schedule.power=0.5",
        "batch.size=100",
        "stop.epochs=5",
        "stop.epochs=3",
        "stop.patience=2",
    ]
    assert read_spec(minimal, overrides) == keywords


def test_a_written_spec_reads_back_equal(job, tmp_path):
    spec = read_spec(job).resolved()
    again = tmp_path / "again.toml"
    again.write_text(spec_toml(spec))
    assert read_spec(again) == spec


def test_everything_wrong_is_reported_at_once_with_value_and_what_is_accepted():
    problems = problems_of(
        nmae="x",
        seed=-1,
        data={"source": "digits", "validation": 1.0, "standardize": "yes"},
        model={"kind": "transformer", "hidden": [128, 0]},
        optimizer={"learning_rate": "fast"},
        schedule={"kind": "exponential"},
        batch={"size": 2.5, "shards": True},
        stop=30,
    )
    assert set(problems) == {
        "nmae", "seed", "data.validation", "data.standardize", "model.kind", "model.hidden[1]",
        "optimizer.learning_rate", "schedule.rate", "batch.size", "batch.shards", "stop",
    }  # fmt: skip
    assert str(problems["nmae"]).startswith('nmae = "x": unknown key; did you mean name? known here: name, seed')
    assert str(problems["seed"]) == "seed = -1: must be an integer, at least 0, less than 9223372036854775808"
    assert str(problems["data.validation"]) == "data.validation = 1.0: must be a number, at least 0, less than 1"
    assert str(problems["data.standardize"]) == 'data.standardize = "yes": must be true or false'
    assert str(problems["model.kind"]) == 'model.kind = "transformer": must be one of "linear", "mlp"'
    assert "at least 1" in str(problems["model.hidden[1]"])
    assert str(problems["optimizer.learning_rate"]) == 'optimizer.learning_rate = "fast": must be a number, more than 0'
    assert str(problems["schedule.rate"]) == (
        'schedule.rate: required with schedule.kind = "exponential": a number, more than 0'
    )
    assert str(problems["batch.shards"]).startswith("batch.shards = true: must be an integer")
    assert str(problems["stop"]) == "stop = 30: must be a table"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "data"),
        ({"data": {}}, "data.source"),
        ({"data": {"source": ""}}, "data.source"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"seed": 2**63}, "seed"),
        ({"workers": {"count": 0}}, "workers.count"),
        ({"workers": {"accelerator": "tpu"}}, "workers.accelerator"),
        ({"objective": {"l2": -1.0}}, "objective.l2"),
        ({"objective": {"l2": float("nan")}}, "objective.l2"),
        ({"objective": {"loss": "hinge"}}, "objective.loss"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate"),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate"),
        ({"optimizer": {"momentum": 1}}, "optimizer.momentum"),
        ({"schedule": {"kind": "step", "factor": 0.5}}, "schedule.every"),
        ({"schedule": {"kind": "step", "every": 3}}, "schedule.factor"),
        ({"schedule": {"kind": "polynomial"}}, "schedule.power"),
        ({"batch": {"size": 0}}, "batch.size"),
        ({"batch": {"precision": "float16"}}, "batch.precision"),
        ({"stop": {"epochs": 0}}, "stop.epochs"),
        ({"stop": {"seconds": -3}}, "stop.seconds"),
        ({"checkpoint": {"every_seconds": 0}}, "checkpoint.every_seconds"),
    ],
)
def test_each_impossible_value_names_its_field(fields, path):
    given = {"data": {"source": "digits"}} | fields if fields and "data" not in fields else fields
    assert list(problems_of(**given)) == [path]


def test_a_schedule_for_another_batch_says_for_which():
    def wrong(tuned_for=None, **batch):
        schedule = {"scale_invariant": True} | ({} if tuned_for is None else {"tuned_for": tuned_for})
        problems = problems_of(data={"source": "digits"}, schedule=schedule, batch={"size": 256} | batch)
        return [str(problem) for problem in problems.values()]

    number = "an integer, at least 1, at most 2147483648"
    assert wrong() == [f"schedule.tuned_for: required with schedule.scale_invariant: {number}"]
    assert wrong(0) == [f"schedule.tuned_for = 0: must be {number}"]
    assert wrong(257) == ["schedule.tuned_for = 257: must be at most batch.size = 256"]
    (one,) = wrong(64, shards=1)
    assert one.startswith("batch.shards = 1: must be at least 2 with schedule.scale_invariant")
    # A batch that is wrong itself is not compared with.
    assert wrong(1000, size=0) == [f"batch.size = 0: must be {number}"]
    spec = JobSpec(data={"source": "digits"}, schedule={"scale_invariant": True, "tuned_for": 256})
    assert spec.resolved().schedule.tuned_for == 256
    assert JobSpec(data={"source": "digits"}, schedule={"tuned_for": 10**6}).schedule.scale_invariant is False


@given(st.integers(1, 10**6), st.integers(1, 4096))
def test_shards_are_lowered_to_a_power_of_two_only_when_there_are_more_than_rows(size, shards):
    resolved = JobSpec(data={"source": "digits"}, batch={"size": size, "shards": shards}).resolved().batch.shards
    if shards <= size:
        assert resolved == shards
    else:
        assert resolved <= size < 2 * resolved
        assert resolved.bit_count() == 1


def test_without_a_stop_rule_training_ends_after_30_epochs():
    assert JobSpec(data={"source": "digits"}).resolved().stop.epochs == 30
    assert JobSpec(data={"source": "digits"}, stop={"steps": 5}).resolved().stop.epochs is None


def test_a_path_in_the_file_is_relative_to_the_file_and_in_an_override_to_the_current_folder(tmp_path, monkeypatch):
    folder = tmp_path / "jobs"
    folder.mkdir()
    job = folder / "job.toml"
    job.write_text('[data]\nsource = "rows.csv"\n')
    monkeypatch.chdir(tmp_path)
    assert read_spec(job).resolved().data.source == str(folder / "rows.csv")
    assert read_spec(job, ["data.source=rows.csv"]).resolved().data.source == str(tmp_path / "rows.csv")
    assert read_spec(job, ["data.source=digits"]).resolved().data.source == "digits"
    assert JobSpec(data={"source": "rows.csv"}).resolved().data.source == str(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such job file"),
        ("[data\n", "not valid TOML"),
        (b"\xff\xfe", "cannot be read as a job file"),
    ],
)
def test_an_unreadable_job_file_is_a_clear_error(tmp_path, text, message):
    path = tmp_path / "job.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_spec(path)


@pytest.mark.parametrize("override", ["seed", "=3", ".=3", "data..source=x"])
def test_an_override_that_is_none_is_a_clear_error(job, override):
    with pytest.raises(InputError, match=r"expected key\.path=value"):
        read_spec(job, [override])


def test_an_override_below_a_value_is_a_clear_error(job):
    with pytest.raises(SpecError, match="seed is a value, not a table"):
        read_spec(job, ["seed.x=3"])


def test_an_override_cannot_smuggle_in_other_keys(job):
    with pytest.raises(SpecError, match="name = "):
        read_spec(job, ["name='x'\nseed=5"])


def test_errors_survive_a_trip_between_processes():
    with pytest.raises(SpecError) as caught:
        JobSpec(data={"source": "digits"}, seed="x", batch={"size": 0})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
