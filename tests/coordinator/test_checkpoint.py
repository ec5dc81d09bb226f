import numpy as np
import pytest
from fakes import toy_dataset, toy_loop, toy_spec

from shardsgd.coordinator.checkpoint import Origin, clear_checkpoints, load_checkpoint, save_checkpoint
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import ResumeError
from shardsgd.model.state import Updater

ORIGIN = Origin("fingerprint", "0.10.2", "2.4.6", "cpu")


@pytest.fixture
def trained():
    """A loop a few steps into its second epoch, so that nothing in its state is at its default."""
    spec, dataset = toy_spec(), toy_dataset()
    loop, _ = toy_loop(spec, dataset)
    for _ in range(4):
        loop.step()
    loop.close_epoch()
    loop.step()
    return loop


def layout_and_slots(spec, dataset):
    problem = make_problem(spec, dataset)
    return problem.layout, Updater(problem).slots


def test_a_state_comes_back_whole_and_goes_on_in_the_same_bits(trained, tmp_path):
    spec, dataset = toy_spec(), toy_dataset()
    layout, slots = layout_and_slots(spec, dataset)
    save_checkpoint(tmp_path, trained.state, layout, ORIGIN)
    state, origin = load_checkpoint(tmp_path, layout, slots, print)
    assert origin == ORIGIN
    assert state.theta.tobytes() == trained.state.theta.tobytes()
    for name in ("step", "seconds", "progress", "noise", "recoveries"):
        assert getattr(state, name) == getattr(trained.state, name)
    resumed, _ = toy_loop(spec, dataset, workers=3, state=state)
    for _ in range(5):
        assert resumed.step().loss == trained.step().loss
    assert resumed.state.theta.tobytes() == trained.state.theta.tobytes()
    assert resumed.state.noise == trained.state.noise


def test_only_the_newest_two_are_kept_and_nothing_temporary_stays(trained, tmp_path):
    layout, _ = layout_and_slots(toy_spec(), toy_dataset())
    for _ in range(3):
        trained.step()
        save_checkpoint(tmp_path, trained.state, layout, ORIGIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:09d}.safetensors" for step in (7, 8)]
    clear_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    layout, slots = layout_and_slots(toy_spec(), toy_dataset())
    assert load_checkpoint(tmp_path, layout, slots, print) is None


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_named(trained, tmp_path):
    layout, slots = layout_and_slots(toy_spec(), toy_dataset())
    good = save_checkpoint(tmp_path, trained.state, layout, ORIGIN)
    before = trained.state
    trained.step()
    bad = save_checkpoint(tmp_path, trained.state, layout, ORIGIN)
    bad.write_bytes(bad.read_bytes()[:100])
    notes = []
    state, _ = load_checkpoint(tmp_path, layout, slots, notes.append)
    assert state.theta.tobytes() == before.theta.tobytes()
    assert good.exists()
    assert len(notes) == 1
    assert notes[0].startswith(f"{bad}: not a usable checkpoint")


@pytest.mark.parametrize("damage", ["truncated", "empty", "not one", "other network"])
def test_an_unusable_checkpoint_is_named(damage, trained, tmp_path):
    layout, slots = layout_and_slots(toy_spec(), toy_dataset())
    path = save_checkpoint(tmp_path, trained.state, layout, ORIGIN)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "not one":
        path.write_bytes(np.random.default_rng(0).bytes(1000))
    else:
        layout, slots = layout_and_slots(toy_spec(model={"hidden": [3]}), toy_dataset())
    with pytest.raises(ResumeError, match=f"{path.name}: not a usable checkpoint"):
        load_checkpoint(tmp_path, layout, slots, print)
