"""What becomes of a job when what runs it dies: tried again, but not for ever."""

import asyncio

import pytest
from stores import log, metrics, new_job

from shardsgd.coordinator.service.dispatcher import Dispatcher
from shardsgd.coordinator.service.runner_messages import Ended, Happened, Ready, Running
from shardsgd.coordinator.service.states import ENDED
from shardsgd.coordinator.service.store import JobStore
from shardsgd.coordinator.service.watch import Feed

DIED = None
RAY = Ended("INTERRUPTED", "Ray was killed: as it happens")
DONE = Ended("SUCCEEDED", "3 epochs done")


class ScriptedRunner:
    """Says what it is to say about one run, and dies where that has no end."""

    def __init__(self, script):
        self._script = script

    async def send(self, message):
        pass

    async def messages(self):
        for message in self._script:
            yield message

    async def ended(self):
        return "killed by SIGSEGV"


class ScriptedRunners:
    """A runner for each run of the script."""

    def __init__(self, runs):
        self._runs = iter(runs)

    async def acquire(self, workers):
        return ScriptedRunner(next(self._runs))

    def release(self, runner):
        pass


def run(first_step, *ends):
    """Messages of a run: some steps from `first_step` on, or none; then its end, or none if it dies."""
    steps = () if first_step is None else (Running(), Happened((metrics(first_step),)))
    return [*steps, *(end for end in ends if end is not None)]


def outcome(tmp_path, runs):
    """The job as it ends, and how many runs it took."""

    async def serve():
        store = JobStore(tmp_path / "store")
        job_id = new_job().job_id
        store.create(new_job(job_id=job_id))
        dispatcher = Dispatcher(
            store, ScriptedRunners(runs), Feed(store), tmp_path, lambda _: "", capacity=2, per_owner=None, private=[],
            log=lambda _: None,
        )  # fmt: skip
        await dispatcher.start()
        async with asyncio.timeout(30):
            while store.get(job_id).state not in ENDED:
                await asyncio.sleep(0)
        await dispatcher.drain()
        record = store.get(job_id)
        store.close()
        return record

    return asyncio.run(serve())


@pytest.mark.parametrize("end", [DIED, RAY], ids=["the step loop", "Ray"])
@pytest.mark.parametrize("step", [None, 7], ids=["before a step", "after the same step"])
def test_what_dies_three_times_in_a_row_fails_its_job_with_the_reason(tmp_path, end, step):
    job = outcome(tmp_path, [run(step, end), run(None, end), run(None, end)])
    assert (job.state, job.runs) == ("FAILED", 3)
    why = "its step loop died: killed by SIGSEGV" if end is DIED else RAY.reason
    assert job.reason == f"{why}; 3 times in a row {'before its first step' if step is None else 'after step 7'}"


@pytest.mark.parametrize("end", [DIED, RAY], ids=["the step loop", "Ray"])
def test_a_job_that_gets_on_between_deaths_is_tried_for_ever(tmp_path, end):
    job = outcome(tmp_path, [*(run(step, end) for step in range(7)), run(7, DONE)])
    assert (job.state, job.runs, job.reason) == ("SUCCEEDED", 8, DONE.reason)


def test_a_runner_that_says_other_things_between_is_heard(tmp_path):
    job = outcome(tmp_path, [[Ready(1), Happened((log("a line"),)), *run(0, DONE)]])
    assert (job.state, job.runs) == ("SUCCEEDED", 1)
