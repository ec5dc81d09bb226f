"""The noise scale of an earlier run, and folders that have none."""

import json
import math

import pytest

from shardsgd import InputError, JobSpec
from shardsgd.coordinator.advice.earlier_run import earlier_noise
from shardsgd.spec_files import spec_toml

SPEC = JobSpec(data={"source": "iris"}, model={"hidden": [8]}, batch={"size": 30}).resolved()
NOISE = {"noise_trace": 5.0, "gradient_norm_squared": 0.01, "noise_scale": 500.0, "variance": []}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "job.toml").write_text(spec_toml(SPEC))
    write_summary(tmp_path, {**NOISE, "noise_scale_low": 400.0, "noise_scale_high": 700.0})
    return tmp_path


def write_summary(folder, noise):
    (folder / "summary.json").write_text(json.dumps({"steps": 1200, "gradient_noise": noise}))


def test_the_noise_scale_is_read_with_its_interval(folder):
    noise, where = earlier_noise(folder, SPEC)
    assert (noise.rows, noise.low, noise.high) == (500.0, 400.0, 700.0)
    assert str(folder) in where
    assert "1,200 steps at B = 30" in where


def test_another_batch_size_rate_or_number_of_workers_is_the_same_job(folder):
    other = SPEC.model_copy(update={"batch": SPEC.batch.model_copy(update={"size": 60}), "name": "other"})
    assert earlier_noise(folder, other)[0].rows == 500.0


def test_null_is_no_bound_and_a_summary_of_an_older_version_has_no_interval(folder):
    write_summary(folder, {**NOISE, "noise_scale_low": 400.0, "noise_scale_high": None})
    assert earlier_noise(folder, SPEC)[0].high == math.inf
    write_summary(folder, NOISE)
    assert earlier_noise(folder, SPEC)[0].low is None


def test_another_job_is_refused_with_the_field_that_differs(folder):
    other = SPEC.model_copy(update={"model": SPEC.model.model_copy(update={"hidden": (9,)})})
    with pytest.raises(InputError, match=r"another job: model.hidden was \(8,\), is \(9,\)"):
        earlier_noise(folder, other)


def test_a_folder_without_an_ended_run_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no run here"):
        earlier_noise(tmp_path / "nowhere", SPEC)
    for content in ("{", "[]", "{}", '{"gradient_noise": {"noise_scale": "x"}, "steps": 1}'):
        (folder / "summary.json").write_text(content)
        with pytest.raises(InputError, match="cannot be read"):
            earlier_noise(folder, SPEC)
    (folder / "summary.json").unlink()
    with pytest.raises(InputError, match="has not ended"):
        earlier_noise(folder, SPEC)
