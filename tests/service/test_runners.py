"""Jobs in runners: real processes, real Ray, real signals. What is killed leaves nothing, and costs no bit and no event."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import shardsgd
from shardsgd.coordinator.service.child import ending
from shardsgd.coordinator.service.jobs import NewEvent, Position
from shardsgd.coordinator.service.runner_messages import Ended, Happened, Run, Running, Scale, Stop
from shardsgd.coordinator.service.runners import Runners
from shardsgd.spec_files import spec_toml

LIMIT_S = 60.0
STORE_BYTES = 100 * 2**20

SMALL = {
    "name": "small",
    "data": {"source": "iris"},
    "model": {"hidden": [8]},
    "optimizer": {"kind": "momentum"},
    "batch": {"size": 30, "shards": 4},
    "checkpoint": {"every_seconds": 0.05},
}
# 4 steps an epoch; long enough that something can happen in the middle of it, wherever it is run.
LONG = SMALL | {"name": "long", "stop": {"steps": 2002}}
OTHER = SMALL | {"name": "other", "seed": 1, "model": {"hidden": [5, 4]}, "stop": {"steps": 601}}


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def runners(loop, said):
    """One keeper for all tests but those that kill it."""

    async def started():
        runners = Runners(capacity=4, object_store_bytes=STORE_BYTES, log=said.append, warm=2)
        await runners.start()
        return runners

    runners = loop(started())
    yield runners
    loop(runners.close(LIMIT_S))
    assert left_of(runners._keeper.pid) == []


@pytest.fixture(scope="module")
def expected(ray_session, tmp_path_factory):
    """Hashes of the parameters that `shardsgd.train` ends with, by the job's name."""
    folder = tmp_path_factory.mktemp("expected")
    return {
        fields["name"]: shardsgd.train(
            shardsgd.JobSpec(**fields), out=folder / fields["name"]
        ).summary.parameters_sha256
        for fields in (LONG, OTHER)
    }


class Job:
    """A job as the service sees it: its events over all runs, checked as they come.

    Attributes:
        ended: how its last run ended; None if its runner died.
        ran: whether the last run came to its first step.
    """

    def __init__(self, folder: Path, fields=LONG):
        self.spec = shardsgd.JobSpec(**fields).resolved()
        self.folder = folder
        self.events: list[NewEvent] = []
        self.ended: Ended | None = None
        self.ran = False
        self.runner = None

    def bodies(self, kind):
        return [event.body for event in self.events if event.kind == kind]

    @property
    def position(self):
        def last(kind):
            return max((body["step"] for body in self.bodies(kind)), default=-1)

        return Position(last("metrics"), last("validation"), last("incident"))

    async def run(self, runners, *, after=lambda job: None, workers=2, scale=None):
        """Runs it, from where its events end; `after` is called with each batch of them."""
        self.runner = runner = await runners.acquire(workers)
        self.ended, self.ran = None, False
        message = Run("id", spec_toml(self.spec), str(self.folder), self.position, scale)
        try:
            await runner.send(message)
            async for message in runner.messages():
                match message:
                    case Running():
                        self.ran = True
                    case Happened():
                        self.events += message.events
                        action = after(self)
                        if action is not None:
                            await action
                    case Ended():
                        self.ended = message
                        break
        finally:
            runners.release(runner)
        return self

    def check(self, expected):
        """Its last run succeeded, with the right bits, and no event is missing, doubled or out of order."""
        assert self.ended is not None
        assert self.ended.outcome == "SUCCEEDED", self.ended.reason
        assert self.ended.summary["parameters_sha256"] == expected[self.spec.name]
        steps = [(body["step"], body["steps_left_out"]) for body in self.bodies("metrics")]
        assert [step for step, _ in steps] == sorted({step for step, _ in steps})
        assert sum(1 + left_out for _, left_out in steps) == steps[-1][0] + 1 == self.spec.stop.steps
        validations = [body["step"] for body in self.bodies("validation")]
        assert validations == list(range(4, self.spec.stop.steps + 1, 4))


def once(condition, action):
    """An `after` that does something when a condition first holds."""
    done = []

    def after(job):
        if not done and condition(job):
            done.append(True)
            return action(job)
        return None

    after.done = done
    return after


async def until_ended(runner):
    """What a runner says until its run has ended, and that."""
    async for message in runner.messages():
        yield message
        if isinstance(message, Ended):
            return


def at_step(step):
    return lambda job: job.position.step >= step


def kill(number):
    return lambda job: os.kill(job.runner.pid, number)


def left_of(keeper: int) -> list[str]:
    """Folders and processes of a keeper's Ray, and the runners that have joined it."""
    own = f"shardsgd-ray-{keeper}-"
    left = [str(path) for path in Path("/tmp").glob(f"{own}*")]
    for pid, line, environment in processes():
        if own in line or own in environment:
            left.append(f"{pid} {line}")
    return left


def processes():
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            yield int(entry.name), line, (entry / "environ").read_bytes().decode(errors="replace")


def workers_of(keeper: int, title: str = "shardsgd-worker") -> set[int]:
    own = f"shardsgd-ray-{keeper}-"
    return {pid for pid, line, environment in processes() if title in line and own in environment}


def working_for(keeper: int) -> set[int]:
    """Those that have a job."""
    return workers_of(keeper, "shardsgd-worker.serve")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()


def wait_until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_jobs_one_after_the_other_have_the_same_warm_workers_and_the_bits_of_train(runners, loop, expected, tmp_path):
    seen = []

    def look(job):
        seen.append((title(job.runner.pid), working_for(runners._keeper.pid)))

    for number, fields in enumerate([LONG, OTHER, LONG]):
        job = loop(Job(tmp_path / str(number), fields).run(runners, after=once(at_step(0), look)))
        job.check(expected)
        assert job.ended.workers == job.runner.workers == 2
        assert title(job.runner.pid) == "shardsgd-loop"
        assert job.runner.last_words == ""
    assert [title for title, _ in seen] == ["shardsgd-loop long", "shardsgd-loop other", "shardsgd-loop long"]
    assert len({frozenset(workers) for _, workers in seen}) == 1
    assert len(seen[0][1]) == 2


def test_what_lets_one_into_ray_is_in_no_command_line(runners):
    token = runners._keeper.settings["RAY_AUTH_TOKEN"]
    assert not [line for _, line, _ in processes() if token in line]


def test_jobs_side_by_side(runners, loop, expected, tmp_path):
    async def both():
        return await asyncio.gather(
            Job(tmp_path / "one").run(runners), Job(tmp_path / "other", OTHER).run(runners, workers=1)
        )

    one, other = loop(both())
    one.check(expected)
    other.check(expected)
    assert one.runner.pid != other.runner.pid


def test_a_stopped_job_goes_on_later_and_with_another_number_of_workers(runners, loop, expected, tmp_path):
    job = Job(tmp_path / "job")
    loop(job.run(runners, after=once(at_step(300), lambda job: job.runner.send(Stop()))))
    assert job.ended.outcome == "INTERRUPTED"
    assert job.ended.reason == ""
    assert 300 < job.ended.summary["steps"] == job.position.step + 1
    loop(job.run(runners, scale=1)).check(expected)
    assert ("left", 1) in [(body["kind"], body["worker"]) for body in job.bodies("incident")]


def test_what_the_service_never_got_it_is_told_again(runners, loop, expected, tmp_path):
    job = Job(tmp_path / "job")
    loop(job.run(runners, after=once(at_step(300), lambda job: job.runner.send(Stop()))))
    job.events = [event for event in job.events if event.body["step"] <= 150]
    loop(job.run(runners)).check(expected)


def test_a_job_is_scaled_while_it_runs(runners, loop, expected, tmp_path):
    job = Job(tmp_path / "job", LONG | {"workers": {"count": 1, "max": 2}})

    def scale(job):
        return job.runner.send(Scale(2))

    # A runner with two warm workers, so that the second need not be waited for longer than the job takes.
    loop(job.run(runners, workers=2, after=once(at_step(0), scale)))
    job.check(expected)
    assert ("joined", 1) in [(body["kind"], body["worker"]) for body in job.bodies("incident")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_runner_that_dies_costs_no_bit_and_no_event(runners, loop, said, expected, tmp_path, number):
    job, workers = Job(tmp_path / "job"), set()

    def strike(job):
        workers.update(working_for(runners._keeper.pid))
        os.kill(job.runner.pid, number)

    loop(job.run(runners, after=once(lambda job: job.position.step >= 200 and checkpoints(job), strike)))
    assert job.ended is None
    why = f"killed by {number.name}"
    assert loop(job.runner.ended()) == why
    assert any(f"runner {job.runner.pid}: {why}" in line for line in said)
    loop(job.run(runners)).check(expected)
    assert len(workers) == 2
    wait_until(lambda: not any(map(alive, workers)))


def checkpoints(job):
    return list((job.folder / "checkpoints").glob("step-*.json"))


def test_a_runner_that_dies_before_its_first_checkpoint_begins_again_without_repeating_itself(
    runners, loop, expected, tmp_path
):
    job = Job(tmp_path / "job", LONG | {"checkpoint": {"every_seconds": 3600.0}})
    loop(job.run(runners, after=once(at_step(200), kill(signal.SIGKILL))))
    assert job.ended is None
    for path in checkpoints(job):
        path.unlink()
    loop(job.run(runners)).check(expected)


def test_workers_that_hang_go_with_a_runner_that_is_killed(runners, loop, tmp_path):
    job = Job(tmp_path / "job")
    frozen = set()

    def freeze_and_kill(job):
        frozen.update(working_for(runners._keeper.pid))
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        os.kill(job.runner.pid, signal.SIGKILL)

    loop(job.run(runners, after=once(at_step(0), freeze_and_kill)))
    assert len(frozen) == 2
    wait_until(lambda: not any(map(alive, frozen)))


def test_wrong_input_fails_the_job_alone_and_the_runner_is_kept(runners, loop, expected, tmp_path):
    wrong = loop(Job(tmp_path / "wrong", SMALL | {"data": {"source": str(tmp_path / "none.csv")}}).run(runners))
    assert wrong.ended.outcome == "FAILED"
    assert wrong.ended.input_error
    assert "none.csv: no such file" in wrong.ended.reason
    assert (wrong.ran, wrong.events) == (False, [])
    right = loop(Job(tmp_path / "right", OTHER).run(runners))
    right.check(expected)
    assert right.runner.pid == wrong.runner.pid


def test_a_job_that_fails_says_why_and_its_workers_are_kept(runners, loop, tmp_path):
    diverging = SMALL | {
        "model": {"kind": "linear"},
        "objective": {"loss": "squared_error"},
        "data": {"source": "diabetes"},
        "optimizer": {"kind": "sgd", "learning_rate": 1e30},
    }
    job = loop(Job(tmp_path / "job", diverging).run(runners))
    assert (job.ended.outcome, job.ended.input_error) == ("FAILED", False)
    assert "diverged in step" in job.ended.reason
    assert job.ended.summary["state"] == "FAILED"
    assert job.ended.workers == 2


def test_a_runner_that_is_given_back_with_its_job_stops_it_and_leaves(runners, loop, tmp_path):
    async def leave_it():
        job = Job(tmp_path / "job")
        runner = await runners.acquire(2)
        await runner.send(Run("id", spec_toml(job.spec), str(job.folder), Position()))
        async for message in runner.messages():
            if isinstance(message, Happened):
                break
        runners.release(runner)
        return await runner.ended()

    assert loop(leave_it()) == "it ended"
    assert '"INTERRUPTED"' in (tmp_path / "job/summary.json").read_text()


def test_no_more_workers_are_kept_than_may_be(runners, loop, tmp_path):
    async def three():
        taken = [await runners.acquire(2) for _ in range(3)]
        for number, runner in enumerate(taken):
            runner.workers = 2
            runners.release(runner)
            assert len(runners._idle) == min(number + 1, 2)
        return await taken[0].ended()

    assert loop(three()) == "it ended"
    assert [runner.workers for runner in runners._idle] == [2, 2]


def test_the_runner_that_suits_best_is_taken(runners, loop):
    async def tried():
        some = [await runners.acquire(2), await runners.acquire(2)]
        for runner, workers in zip(some, (1, 3), strict=True):
            runner.workers = workers
            runners.release(runner)
        best = {}
        for wanted in (1, 2, 3, 4):
            runner = await runners.acquire(wanted)
            best[wanted] = runner.workers
            runners.release(runner)
        return best

    assert loop(tried()) == {1: 1, 2: 3, 3: 3, 4: 3}


def test_a_killed_keeper_takes_its_ray_along_and_the_job_goes_on_over_another(loop, expected, tmp_path):
    job, said = Job(tmp_path / "job"), []

    async def scenario():
        runners = Runners(capacity=2, object_store_bytes=STORE_BYTES, log=said.append, warm=1)
        await runners.start()
        first = runners._keeper.pid
        await job.run(runners, after=once(at_step(200), lambda job: os.kill(first, signal.SIGKILL)))
        assert job.ended is not None
        assert (job.ended.outcome, job.position.step + 1) == ("INTERRUPTED", job.ended.summary["steps"])
        await job.runner.ended()
        await job.run(runners)
        second = runners._keeper.pid
        await runners.close(LIMIT_S)
        return first, second

    first, second = loop(scenario())
    job.check(expected)
    assert any("Ray is gone (killed by SIGKILL)" in line for line in said)
    wait_until(lambda: not left_of(first))
    assert left_of(second) == []


def test_closing_stops_what_runs_with_a_checkpoint_and_leaves_nothing(runners, loop, expected, tmp_path):
    job, said = Job(tmp_path / "job"), []

    async def scenario():
        own = Runners(capacity=2, object_store_bytes=STORE_BYTES, log=said.append)
        await own.start()
        closing = []
        at_200 = once(at_step(200), lambda job: closing.append(asyncio.create_task(own.close(LIMIT_S))))
        await job.run(own, after=at_200)
        await closing[0]
        with pytest.raises(shardsgd.JobError, match="about to end"):
            await own.acquire(1)
        return own._keeper.pid

    keeper = loop(scenario())
    assert job.ended.outcome == "INTERRUPTED"
    assert left_of(keeper) == []
    assert said == []
    loop(job.run(runners)).check(expected)


def test_a_runner_told_to_terminate_stops_its_job_with_a_checkpoint(runners, loop, expected, tmp_path):
    job = Job(tmp_path / "job")
    loop(job.run(runners, after=once(at_step(200), kill(signal.SIGTERM))))
    assert job.ended.outcome == "INTERRUPTED"
    assert loop(job.runner.ended()) == "it ended"
    loop(job.run(runners)).check(expected)


def test_a_job_is_taken_over_from_a_runner_that_was_stopped(runners, loop, expected, tmp_path):
    job = Job(tmp_path / "job")

    def stop_outside_of_changes(job):
        folder = os.open(job.folder / "checkpoints", os.O_RDONLY)
        # Whoever holds this lock is the only one to change the folder, and the run is not.
        fcntl.flock(folder, fcntl.LOCK_EX)
        os.kill(job.runner.pid, signal.SIGSTOP)
        wait_until(lambda: "\nState:\tT" in Path(f"/proc/{job.runner.pid}/status").read_text())
        os.close(folder)

    async def scenario():
        stopped = await runners.acquire(2)
        await stopped.send(Run("id", spec_toml(job.spec), str(job.folder), Position()))
        job.runner, messages = stopped, stopped.messages()
        while job.position.step < 200 or not checkpoints(job):
            message = await anext(messages)
            job.events += message.events if isinstance(message, Happened) else ()
        stop_outside_of_changes(job)
        # What it had sent by then; the store would have it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                async for message in messages:
                    job.events += message.events
        await job.run(runners)
        os.kill(stopped.pid, signal.SIGCONT)
        late = [message async for message in until_ended(stopped)][-1]
        runners.release(stopped)
        return late

    late = loop(scenario())
    job.check(expected)
    assert late.outcome == "FAILED"
    assert "has taken over the job's folder" in late.reason


def test_idle_runners_go_with_a_killed_keeper(loop):
    async def scenario():
        runners = Runners(capacity=2, object_store_bytes=STORE_BYTES, log=print)
        await runners.start()
        (runner,) = runners._idle
        keeper = runners._keeper.pid
        os.kill(keeper, signal.SIGKILL)
        assert await runner.ended() == "it ended"
        await runners.close(LIMIT_S)
        return keeper

    keeper = loop(scenario())
    wait_until(lambda: not left_of(keeper))


PARENT = """
import asyncio, sys
from shardsgd.coordinator.service.jobs import Position
from shardsgd.coordinator.service.runner_messages import Happened, Run
from shardsgd.coordinator.service.runners import Runners

async def main():
    runners = Runners(capacity=2, object_store_bytes=100 * 2**20, log=print, warm=1)
    await runners.start()
    assert not {"ray", "jax", "sklearn"} & set(sys.modules)
    other = await runners.acquire(1)
    runner = await runners.acquire(1)
    runners.release(other)
    await runner.send(Run("id", sys.argv[1], sys.argv[2], Position()))
    async for message in runner.messages():
        if isinstance(message, Happened):
            print(runners._keeper.pid, runner.pid, other.pid, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


def test_nothing_outlives_a_killed_service_and_its_job_goes_on(runners, loop, expected, tmp_path):
    job = Job(tmp_path / "job", LONG)
    command = [sys.executable, "-c", PARENT, spec_toml(job.spec), str(job.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        keeper, *others = map(int, parent.stdout.readline().split())
        assert all(map(alive, [keeper, *others]))
        parent.kill()
    wait_until(lambda: not any(map(alive, [keeper, *others])))
    assert left_of(keeper) == []
    assert '"INTERRUPTED"' in (job.folder / "summary.json").read_text(), "it had stopped first"
    loop(job.run(runners)).check(expected)


async def fail_to_start(**options):
    runners = Runners(capacity=1, log=print, **options)
    try:
        await runners.start()
    finally:
        await runners.close(LIMIT_S)


def test_a_ray_that_cannot_start_is_a_clear_error(loop):
    with pytest.raises(shardsgd.JobError, match=r"Ray could not be started: .*memory"):
        loop(fail_to_start(object_store_bytes=2**60))


def test_a_process_that_cannot_start_is_a_clear_error(loop, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "nonsense")
    with pytest.raises(shardsgd.JobError, match="Ray could not be started: exit code 1: "):
        loop(fail_to_start(object_store_bytes=STORE_BYTES))


def test_an_end_is_told_in_words():
    assert ending(-signal.SIGSEGV, "whatever") == "killed by SIGSEGV"
    assert ending(0, "") == "it ended"
    assert ending(3, "") == "exit code 3"
    assert ending(1, "Traceback\n  ...\nMemoryError: no room") == "exit code 1: MemoryError: no room"
