import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from checkpoints import LAYOUT, ORIGIN, SLOTS, is_same, job_keeping, state_at
from fakes import toy_dataset, toy_loop, toy_spec
from hypothesis import given
from safetensors.numpy import load_file, save_file

from shardsgd.coordinator.checkpoint import Job, has_checkpoint, save_checkpoint, sweep_checkpoints
from shardsgd.coordinator.checkpoint_reading import load_checkpoint
from shardsgd.coordinator.manifest import Manifest
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import ResumeError
from shardsgd.model.layout import Layout
from shardsgd.model.statistics import NoiseHistory


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files_of(*steps):
    return sorted(f"step-{step:09d}{suffix}" for step in steps for suffix in (".json", ".safetensors"))


def load(folder, notes=None, layout=LAYOUT, slots=SLOTS):
    return load_checkpoint(folder, layout, slots, [].append if notes is None else notes.append)


def check_passed_over(folder, step, reason):
    """The newest checkpoint is known to be damaged, and why; the one of this step is used."""
    notes = []
    assert is_same(load(folder, notes).state, state_at(step))
    assert len(notes) == 1
    assert "step-000000009" in notes[0]
    assert reason in notes[0]


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of steps 4 and 9."""
    for step in (4, 9):
        save_checkpoint(tmp_path, state_at(step), job_keeping())
    return tmp_path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Likewise, to copy."""
    folder = tmp_path_factory.mktemp("two")
    for step in (4, 9):
        save_checkpoint(folder, state_at(step), job_keeping())
    return folder


def test_a_state_comes_back_whole_and_goes_on_in_the_same_bits(tmp_path):
    spec, dataset = toy_spec(), toy_dataset()
    problem = make_problem(spec, dataset)
    trained, _ = toy_loop(spec, dataset)
    # Into the second epoch, so that nothing in the state is at its default.
    for _ in range(4):
        trained.step()
    trained.close_epoch()
    trained.step()
    save_checkpoint(tmp_path, trained.state, Job(spec, problem.layout, ORIGIN))
    loaded = load(tmp_path, layout=problem.layout, slots=problem.optimizer.slots)
    assert (loaded.origin, loaded.spec) == (ORIGIN, spec)
    assert is_same(loaded.state, trained.state)
    resumed, _ = toy_loop(spec, dataset, workers=3, state=loaded.state)
    for _ in range(5):
        assert resumed.step().loss == trained.step().loss
    assert resumed.state.theta.tobytes() == trained.state.theta.tobytes()
    assert resumed.state.noise == trained.state.noise


def test_the_data_file_is_one_that_safetensors_reads(two):
    arrays = load_file(two / "step-000000009.safetensors")
    expected = {f"parameters/{name}": view for name, view in LAYOUT.views(state_at(9).theta).items()}
    expected["optimizer/0"] = state_at(9).optimizer_state[0]
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()} == {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in expected.items()
    }


def test_the_manifest_says_what_is_saved(two):
    manifest = json.loads((two / "step-000000009.json").read_text())
    assert manifest["format"] == 2
    assert manifest["file"] == "step-000000009.safetensors"
    assert manifest["nbytes"] == (two / manifest["file"]).stat().st_size
    assert manifest["step"] == 9
    assert manifest["origin"]["jaxlib"] == ORIGIN.jaxlib
    assert manifest["spec"]["data"]["source"] == "digits"


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_only_the_newest_are_kept_and_nothing_temporary_stays(tmp_path, keep):
    (tmp_path / "step-notes.json").write_text("the user's own")
    for step in range(1, 8):
        save_checkpoint(tmp_path, state_at(step), job_keeping(keep))
    assert names(tmp_path) == [*files_of(*range(8 - keep, 8)), "step-notes.json"]
    assert has_checkpoint(tmp_path)
    sweep_checkpoints(tmp_path, keep=0)
    assert names(tmp_path) == ["step-notes.json"]


def test_more_digits_than_nine_do_not_confuse_the_order(tmp_path):
    for step in (999_999_998, 999_999_999, 1_000_000_000, 1_000_000_001):
        save_checkpoint(tmp_path, state_at(step), job_keeping())
    assert names(tmp_path) == files_of(1_000_000_000, 1_000_000_001)
    assert load(tmp_path).state.step == 1_000_000_001


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert load(tmp_path) is None
    assert load(tmp_path / "nowhere") is None
    assert not has_checkpoint(tmp_path)


def test_a_crash_between_data_and_manifest_leaves_the_one_before(two):
    """The first crash in a run leaves nothing to go on from, and that is no error."""
    (two / "step-000000009.json").unlink()
    check_passed_over(two, 4, "no manifest")
    (two / "step-000000004.json").unlink()
    assert load(two) is None
    assert not has_checkpoint(two)


def test_what_a_crash_left_is_swept_when_the_next_checkpoint_is_saved(two):
    (two / "step-000000009.json").unlink()
    for name in (".step-000000009.json.01234567", ".step-000000004.safetensors.89abcdef"):
        (two / name).write_text("half")
    (two / ".step-notes").write_text("the user's own")
    save_checkpoint(two, state_at(5), job_keeping(3))
    assert names(two) == [".step-notes", *files_of(4, 5)]


def test_what_is_newer_than_a_resumed_state_is_swept(two):
    """It would be counted among the newest, and the good ones removed before it."""
    sweep_checkpoints(two, keep=2, until=4)
    assert names(two) == files_of(4)


@pytest.mark.parametrize("removed", range(5))
def test_a_crash_while_checkpoints_are_removed_leaves_none_without_its_data(two, monkeypatch, removed):
    left, unlink = [removed], Path.unlink

    def crashing(path, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Path, "unlink", crashing)
        sweep_checkpoints(two, keep=0)
    assert all(name.replace(".json", ".safetensors") in names(two) for name in names(two))
    loaded = load(two)
    assert loaded is None or loaded.state.step in (4, 9)


@given(st.data())
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_truncated_file_is_found_out(originals, tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("copy") / "two"
    shutil.copytree(originals, folder)
    path = folder / f"step-000000009{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    check_passed_over(folder, 4, "not a usable checkpoint")


@given(st.data())
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_changed_byte_is_found_out(originals, tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("copy") / "two"
    shutil.copytree(originals, folder)
    path = folder / f"step-000000009{suffix}"
    content = bytearray(path.read_bytes())
    # A blank too: of all changes to a manifest the one that means least.
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.sampled_from([b for b in (0, 9, 10, 32, 48, 57, 255) if b != content[position]]))
    path.write_bytes(content)
    check_passed_over(folder, 4, "not a usable checkpoint")


def test_every_byte_of_a_manifest_counts(originals, tmp_path):
    shutil.copytree(originals, tmp_path / "two")
    path = tmp_path / "two/step-000000009.json"
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert load(tmp_path / "two").state.step == 4, content[position:][:20]
    for extra in (b"\n", b" ", b"x"):
        path.write_bytes(content + extra)
        assert load(tmp_path / "two").state.step == 4


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data, manifest: data.unlink(), "its data file step-000000009.safetensors is missing"),
        (lambda data, manifest: manifest.unlink(), "it has no manifest"),
        (lambda data, manifest: data.write_bytes(data.read_bytes()[:-1]), "bytes, not"),
        (lambda data, manifest: data.write_bytes(b""), "has 0 bytes, not"),
        (lambda data, manifest: data.write_bytes(bytes(data.stat().st_size)), "has been altered: its SHA-256"),
        (lambda data, manifest: manifest.write_bytes(b""), "its manifest is not JSON"),
        (lambda data, manifest: manifest.write_bytes(b"[]"), "its manifest is not a JSON object"),
        (lambda data, manifest: manifest.write_bytes(b"\xff\xfe"), "its manifest is not JSON"),
        (lambda data, manifest: manifest.write_bytes(b"{}"), "its format is None, this version reads 2"),
        (lambda data, manifest: manifest.write_bytes(b'{"format": 3}'), "its format is 3, this version reads 2"),
        (lambda data, manifest: manifest.write_bytes(b'{"format": 2}'), "its manifest has been altered"),
        (lambda data, manifest: (data.unlink(), data.mkdir()), "its data file step-000000009.safetensors is missing"),
        (lambda data, manifest: (manifest.unlink(), manifest.mkdir()), "Is a directory"),
    ],
)
def test_damage_is_named_with_its_reason(two, damage, reason):
    damage(two / "step-000000009.safetensors", two / "step-000000009.json")
    check_passed_over(two, 4, reason)


def test_swapped_manifests_are_found_out(two):
    first, second = two / "step-000000004.json", two / "step-000000009.json"
    first.rename(two / "aside")
    second.rename(first)
    (two / "aside").rename(second)
    with pytest.raises(ResumeError, match=r"step-000000009: .*manifest is that of step 4; .*-000000004: .*of step 9"):
        load(two)


def test_if_none_is_usable_all_are_named(two):
    for step in (4, 9):
        (two / f"step-{step:09d}.safetensors").unlink()
    with pytest.raises(ResumeError, match=r"step-000000009: not a usable.*; .*step-000000004: not a usable.*missing"):
        load(two)


@pytest.mark.parametrize(
    ("layout", "slots"),
    [
        (Layout.pack([("layer0.weight", (5, 3)), ("layer0.bias", (5,))], np.dtype(np.float32)), 1),
        (Layout.pack([("layer0.weight", (3, 5)), ("layer0.bias", (5,))], np.dtype(np.float64)), 1),
        (Layout.pack([("layer0.weight", (3, 5))], np.dtype(np.float32)), 1),
        (LAYOUT, 0),
        (LAYOUT, 2),
    ],
)
def test_arrays_of_another_network_or_optimizer_are_refused(two, layout, slots):
    with pytest.raises(ResumeError, match="not a usable checkpoint"):
        load(two, layout=layout, slots=slots)


def test_a_checkpoint_of_the_first_format_is_named_as_such(tmp_path):
    theta = {"parameters/x": np.zeros(3, np.float32)}
    save_file(theta, tmp_path / "step-000000003.safetensors", {"format": "1", "state": "{}"})
    with pytest.raises(ResumeError, match=r"step-000000003: .*its format is 1, this version reads 2"):
        load(tmp_path)


def test_a_checkpoint_of_a_version_without_intervals_goes_on_and_smooths_anew(two):
    """Its smoothed values came without their spread, and would seem to be exact."""
    path = two / "step-000000009.json"
    manifest = Manifest.parse(path.read_bytes())
    noise = manifest.state["noise"]
    for name in ("trace_spread", "norm_spread", "joint_spread"):
        del noise[name]
    del manifest.state["schedule_steps"]
    path.write_bytes(manifest.render())
    saved, loaded = state_at(9), load(two).state
    assert loaded.schedule_steps == 9
    assert loaded.noise == NoiseHistory(pairs=saved.noise.pairs)
    assert is_same(replace(loaded, noise=saved.noise, schedule_steps=saved.schedule_steps), saved)


def test_a_full_disk_leaves_the_checkpoints_as_they_were(two, monkeypatch):
    before = {name: (two / name).read_bytes() for name in names(two)}

    def fail(*_):
        raise OSError(28, "No space left on device")

    for function in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(function, fail)
            with pytest.raises(OSError, match="No space left"):
                save_checkpoint(two, state_at(10), job_keeping())
    assert {name: (two / name).read_bytes() for name in names(two)} == before
