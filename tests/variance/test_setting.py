"""What is measured and where: batch sizes, repeats, and θ of a run's folder; everything wrong is refused before it begins."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import toy_loop
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.arrays_file import write_arrays
from shardsgd.coordinator.checkpoint import Job, Origin, save_checkpoint
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.training import make_problem
from shardsgd.coordinator.variance.setting import batch_sizes, point_of, repeats_by_size
from shardsgd.errors import InputError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import spec_toml

IRIS = {"data": {"source": "iris"}, "model": {"hidden": [5]}, "optimizer": {"kind": "momentum"}, "batch": {"size": 30}}


def job(**changes):
    return JobSpec(**IRIS | changes).resolved()


@given(st.integers(1, 10**7))
def test_without_being_told_powers_of_two_and_all_rows(rows):
    sizes = batch_sizes(rows, None)
    assert sizes[-1] == rows
    assert list(sizes[:-1]) == [2**k for k in range(len(sizes) - 1)]
    assert all(size < rows for size in sizes[:-1])
    assert 2 ** len(sizes[:-1]) >= rows


def test_batch_sizes_in_any_order_and_twice_are_measured_once_ascending():
    assert batch_sizes(100, [100, 7, 1, 7]) == (1, 7, 100)


@pytest.mark.parametrize(("wanted", "named"), [([0, 5], "0"), ([5, 101, -2], "-2, 101"), ([], "none given")])
def test_batch_sizes_that_cannot_be_are_named(wanted, named):
    with pytest.raises(InputError, match=rf"--batches \(batches\): {named}; accepted: .* 1 to the 100 training rows"):
        batch_sizes(100, wanted)


def test_repeats_are_what_was_asked_for():
    assert repeats_by_size(1000, (1, 10, 1000), 7) == {1: 7, 10: 7, 1000: 7}
    for wrong in (1, 0, -3):
        with pytest.raises(InputError, match=rf"--repeats \(repeats\) = {wrong}: accepted: 2 or more"):
            repeats_by_size(1000, (1,), wrong)


@given(st.integers(1, 10**6))
def test_small_batches_are_drawn_more_often_where_that_costs_little(rows):
    sizes = batch_sizes(rows, None)
    repeats = repeats_by_size(rows, sizes, None)
    assert repeats[rows] == 100
    assert all(100 <= number <= 1600 for number in repeats.values())
    for size in sizes:
        assert repeats[size] == 100 or size * repeats[size] <= 100 * rows / 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, θ after 3 steps) of a run of the IRIS job, with a checkpoint."""
    folder, spec = tmp_path_factory.mktemp("run"), job()
    dataset = load_dataset(spec)
    loop, _ = toy_loop(spec, dataset, workers=1)
    for _ in range(3):
        loop.step()
    (folder / "job.toml").write_text(spec_toml(spec))
    (folder / "checkpoints").mkdir()
    origin = Origin(dataset.fingerprint, "1", "2", "cpu")
    save_checkpoint(folder / "checkpoints", loop.state, Job(spec, make_problem(spec, dataset).layout, origin))
    return folder, loop.state.theta.copy()


def point(at, spec, notes=None):
    dataset = load_dataset(spec)
    return point_of(at, spec, dataset, make_problem(spec, dataset), (notes if notes is not None else []).append)


def test_without_a_run_it_is_where_training_begins():
    spec = job(seed=4)
    problem = make_problem(spec, load_dataset(spec))
    found = point(None, spec)
    assert found.step == 0
    assert found.theta.tobytes() == problem.network.initialize(4, problem.layout).tobytes()


def test_a_runs_newest_checkpoint_says_where(trained):
    folder, theta = trained
    # What the variance does not depend on may be another.
    spec = job(optimizer={"kind": "sgd"}, objective={"l2": 0.1}, stop={"steps": 1}, batch={"size": 40}, name="other")
    found = point(folder, spec)
    assert found.step == 3
    assert found.theta.tobytes() == theta.tobytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"hidden": [6]}}, r"model\.hidden was \(5,\), is \(6,\)"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch": {"size": 30, "precision": "float64"}}, r"batch\.precision was 'float32', is 'float64'"),
        ({"data": {"source": "iris", "validation": 0.5}}, r"data\.validation was 0\.2, is 0\.5"),
    ],
)
def test_another_jobs_run_is_refused_with_what_differs(trained, changes, named):
    with pytest.raises(InputError, match=rf"--at .*: the run there is another job's: {named}"):
        point(trained[0], job(**changes))


def test_other_data_is_refused():
    rows = np.column_stack([np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2])
    np.save("rows.npy", rows)
    spec = job(data={"source": "rows.npy"}, batch={"size": 16})
    dataset = load_dataset(spec)
    loop, _ = toy_loop(spec, dataset, workers=1)
    folder = Path("run")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "job.toml").write_text(spec_toml(spec))
    origin = Origin(dataset.fingerprint, "1", "2", "cpu")
    save_checkpoint(folder / "checkpoints", loop.state, Job(spec, make_problem(spec, dataset).layout, origin))
    assert point(folder, spec).step == 0
    rows[0, 0] += 1
    np.save("rows.npy", rows)
    with pytest.raises(InputError, match=r"--at run: the data of .*rows\.npy has changed since"):
        point(folder, spec)


def test_without_a_checkpoint_the_parameters_that_were_left_are_taken(trained):
    spec, notes, folder = job(), [], Path("bare")
    folder.mkdir()
    layout = make_problem(spec, load_dataset(spec)).layout
    (folder / "job.toml").write_text(spec_toml(spec))
    with pytest.raises(InputError, match=r"--at bare: neither a checkpoint nor a usable parameters\.safetensors"):
        point(folder, spec)
    write_arrays(folder / "parameters.safetensors", layout.views(trained[1]))
    found = point(folder, spec, notes)
    assert found.theta.tobytes() == trained[1].tobytes()
    assert found.step is None
    assert notes == ["bare: no checkpoint; its parameters.safetensors is taken, which does not say of which data it is"]
    (folder / "summary.json").write_text(json.dumps({"steps": 17}))
    assert point(folder, spec).step == 17


def test_parameters_of_other_shapes_are_refused():
    spec, folder = job(), Path("bare")
    folder.mkdir()
    (folder / "job.toml").write_text(spec_toml(spec))
    write_arrays(folder / "parameters.safetensors", {"layer0.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(InputError, match=r"holds \{'layer0\.weight': \('float32', \(2, 2\)\)\}; this job's are"):
        point(folder, spec)


def test_a_folder_without_a_run_and_damaged_checkpoints_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match=r"--at nowhere: no run here \(no job\.toml\)"):
        point(Path("nowhere"), job())
    import shutil

    broken = Path(shutil.copytree(trained[0], tmp_path / "broken"))
    next((broken / "checkpoints").glob("*.safetensors")).write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"--at .*broken: .*not a usable checkpoint"):
        point(broken, job())
