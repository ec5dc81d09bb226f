"""A session's checkpoints while it steps and as it ends: real files, real leaves, no Ray."""

import json
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from checkpoints import ORIGIN
from fakes import toy_dataset, toy_loop, toy_spec

from shardsgd.coordinator import session
from shardsgd.coordinator.checkpoint import save_checkpoint
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.pacing import checkpoint_interval
from shardsgd.coordinator.records import Silent
from shardsgd.coordinator.resume import check_same_job, resumed_state
from shardsgd.coordinator.session import Session
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import ResumeError, TakenOverError

ALWAYS, NEVER = 1e-9, 1e9


def spec_of(steps, every=NEVER, **changes):
    return toy_spec(stop={"steps": steps}, checkpoint={"every_seconds": every}, **changes)


@dataclass
class Observer(Silent):
    """Calls a function after each step; keeps what the user is told."""

    after: object = staticmethod(lambda step: None)
    notes: tuple = ()

    def step(self, record, pace):
        self.after(record.step + 1)

    def note(self, text):
        self.notes += (text,)


@contextmanager
def ready(path, spec, observer=None, *, resume=False, take_over=False):
    """A session that has taken its folder, as run_training makes it."""
    folder, dataset = RunFolder(path), toy_dataset()
    observer = observer or Observer()
    problem = make_problem(spec, dataset)
    if resume:
        check_same_job(spec, folder)
    with ExitStack() as stack:
        stack.enter_context(folder.lock(take_over=take_over))
        state = resumed_state(spec, folder, problem, ORIGIN, observer) if resume else None
        stack.enter_context(folder.record(spec, resumed=state))
        loop, _ = toy_loop(spec, dataset, state=state)
        yield Session(spec, problem, loop, loop._rounds, folder, ORIGIN, observer)


def run(path, spec, observer=None, *, resume=False):
    with ready(path, spec, observer, resume=resume) as prepared:
        return prepared.run().summary


def manifests(path):
    return [int(file.stem[5:]) for file in sorted((path / "checkpoints").glob("step-*.json"))]


def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def bits(state):
    return [state.theta.tobytes(), *(slot.tobytes() for slot in state.optimizer_state)]


def test_the_steps_go_on_while_a_checkpoint_is_written_and_it_is_of_the_step_at_which_it_was_begun(
    tmp_path, monkeypatch
):
    written, gate, spec = [], threading.Event(), spec_of(8, ALWAYS)

    def slow(folder, state, *arguments):
        if not written:
            # The fifth step opens it: if the steps waited for this, nobody would.
            assert gate.wait(30)
        written.append((state.step, bits(state), threading.current_thread() is threading.main_thread()))
        return save_checkpoint(folder, state, *arguments)

    monkeypatch.setattr(session, "save_checkpoint", slow)
    run(tmp_path, spec, Observer(lambda step: step == 5 and gate.set()))
    straight, _ = toy_loop(spec, toy_dataset())
    expected = {}
    for step in range(9):
        expected[step] = bits(straight.state)
        straight.step()
    assert all(found == expected[step] for step, found, _ in written)
    steps = [step for step, _, _ in written]
    assert steps[0] == 0
    assert all(step >= 5 for step in steps[1:]), "due, and not begun while the first was under way"
    assert written[-1][0::2] == (8, True), "the last one is written before the run ends"
    assert not any(in_main_thread for _, _, in_main_thread in written[:-1])
    assert manifests(tmp_path)[-1] == 8
    assert "checkpoint" not in {thread.name for thread in threading.enumerate()}


def test_the_metrics_before_a_checkpoint_are_durable_before_it_exists(tmp_path, monkeypatch):
    durable, sync = [0], RunFolder.sync

    def counted(folder):
        durable.append(len((tmp_path / "metrics.jsonl").read_bytes().splitlines()))
        sync(folder)

    def save(folder, state, *arguments):
        # Up to the second epoch: a line of validation after every fourth step.
        assert durable[-1] >= state.step + state.progress.epochs
        return save_checkpoint(folder, state, *arguments)

    monkeypatch.setattr(RunFolder, "sync", counted)
    monkeypatch.setattr(session, "save_checkpoint", save)
    run(tmp_path, spec_of(9, ALWAYS))
    assert len(durable) >= 3


@pytest.mark.parametrize("at", ["once", "from then on"])
def test_a_disk_that_is_full_ends_the_run_with_that_error(tmp_path, monkeypatch, at):
    steps, tried = [], []

    def fail(folder, state, *arguments):
        tried.append(state.step)
        if len(tried) == 1 or at == "from then on":
            raise OSError(28, "No space left on device")
        return save_checkpoint(folder, state, *arguments)

    def after(step):
        steps.append(step)
        # Nobody else says when the thread is done.
        for thread in threading.enumerate():
            if thread.name == "checkpoint":
                thread.join()

    monkeypatch.setattr(session, "save_checkpoint", fail)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, spec_of(8, ALWAYS), Observer(after))
    assert steps == [1], "at the first step's end"
    assert tried == [0, 1], "and whatever can still be saved is"
    assert manifests(tmp_path) == ([1] if at == "once" else [])


def test_a_failed_checkpoint_does_not_matter_any_more_once_the_last_one_is_written(tmp_path, monkeypatch):
    gate = threading.Event()

    def fail(folder, state, *arguments):
        if threading.current_thread() is threading.main_thread():
            return save_checkpoint(folder, state, *arguments)
        assert gate.wait(30)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "save_checkpoint", fail)
    assert run(tmp_path, spec_of(4, ALWAYS), Observer(lambda step: step == 4 and gate.set())).state == "SUCCEEDED"
    assert manifests(tmp_path) == [4]


@pytest.mark.parametrize(("every", "flush"), [(NEVER, 0.0), (ALWAYS, NEVER), (NEVER, NEVER)])
def test_a_session_that_is_taken_over_ends_and_leaves_everything_as_it_is(tmp_path, monkeypatch, every, flush):
    """At the next flush, in a checkpoint beside the steps, or in the last one: whichever comes first."""
    monkeypatch.setattr(session, "_FLUSH_S", flush)
    spec = spec_of(60, every)
    steps, ours = [], []

    with ExitStack() as others:

        def after(step):
            steps.append(step)
            if step == 3:
                others.enter_context(ready(tmp_path, spec, take_over=True))
                ours.append(content(tmp_path))

        with (
            pytest.raises(TakenOverError, match=r"another run .* has taken over"),
            ready(tmp_path, spec, Observer(after)) as old,
        ):
            old.run()
        assert content(tmp_path) == ours[0]
    assert "checkpoint" not in {thread.name for thread in threading.enumerate()}
    if every == flush:
        assert steps[-1] == 60
    elif flush == 0.0:
        assert steps[-1] == 3, "noticed at the next flush"
    assert not (tmp_path / "summary.json").exists()


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_and_ends_in_the_same_bits(tmp_path):
    straight = run(tmp_path / "straight", spec_of(12))
    path = tmp_path / "run"
    run(path, spec_of(5))
    run(path, spec_of(9), resume=True)
    assert manifests(path) == [5, 9]
    newest = path / "checkpoints/step-000000009.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    observer = Observer()
    resumed = run(path, spec_of(12), observer, resume=True)
    assert len(observer.notes) == 1
    assert "step-000000009: not a usable checkpoint" in observer.notes[0]
    for name in ("parameters_sha256", "steps", "train_loss", "validation", "gradient_noise"):
        assert getattr(resumed, name) == getattr(straight, name)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" not in line] == list(range(12))
    assert manifests(path) == [5, 12], "the damaged one is gone, and takes nobody's place"


def test_checkpoints_of_another_job_are_not_gone_on_from(tmp_path):
    run(tmp_path / "one", spec_of(3))
    run(tmp_path / "other", spec_of(4, seed=1))
    for file in (tmp_path / "other/checkpoints").glob("step-*"):
        file.rename(tmp_path / "one/checkpoints" / file.name)
    with pytest.raises(ResumeError, match="the checkpoint of step 4 is another job: seed was 1, is 0"):
        run(tmp_path / "one", spec_of(5), resume=True)
    assert manifests(tmp_path / "one") == [3, 4]


def test_as_many_checkpoints_are_kept_as_the_spec_says(tmp_path):
    spec = toy_spec(stop={"steps": 1}, checkpoint={"keep": 3})
    for steps in (1, 2, 3, 4, 5):
        spec = toy_spec(stop={"steps": steps}, checkpoint={"keep": 3})
        run(tmp_path, spec, resume=steps > 1)
    assert manifests(tmp_path) == [3, 4, 5]


def test_checkpoints_come_early_enough_to_be_there_when_the_next_is_due():
    assert checkpoint_interval(30.0, write=0.0, step=0.0) == 30.0
    assert checkpoint_interval(30.0, write=1.0, step=0.5) == 27.0
    assert checkpoint_interval(1.0, write=1.0, step=0.5) == 0.5, "half of the time is for steps"
