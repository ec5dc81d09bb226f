"""The dispatcher: which job runs now, in which runner, and what its end means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardsgd.coordinator.service.jobs import DiskFullError, JobGoneError, JobRecord, StaleError
from shardsgd.coordinator.service.runner_messages import Ended, Happened, Run, Scale, Stop
from shardsgd.coordinator.service.runner_messages import Running as FirstStep
from shardsgd.coordinator.service.runners import Runner, Runners
from shardsgd.coordinator.service.schedule import Running, Waiting, next_jobs, queue_position
from shardsgd.coordinator.service.states import HOLDS_WORKERS, Intent, JobState, Outcome, after_run
from shardsgd.coordinator.service.store import JobStore
from shardsgd.coordinator.service.translation import without_folders
from shardsgd.coordinator.service.watch import Feed
from shardsgd.errors import ShardsgdError

# Deaths of a job's step loop, or of Ray under it, in a row, without a step between them, before the job fails.
_MOST_DEATHS = 3
# Between two looks at a disk that was full.
_DISK_FULL_SECONDS = 5.0
_RESTARTED = "the service was restarted"


@dataclass
class _Active:
    """A job that holds workers.

    Attributes:
        owner: whose it is.
        workers: how many it holds.
        runner: its process; None while that is made ready.
    """

    owner: str
    workers: int
    runner: Runner | None = None


class Dispatcher:
    """Runs the jobs of a store.

    Args:
        store: of jobs.
        runners: processes to run them in.
        feed: told of every change.
        folder: of the jobs' files; each has its own within.
        run_spec: makes of a job the spec to be run, as TOML: where its dataset lies on this machine.
        capacity: workers that may compute at a time.
        per_owner: of these, how many one owner's jobs may hold; None: all.
        private: folders whose names no caller is told.
        log: for the operator.
    """

    def __init__(
        self,
        store: JobStore,
        runners: Runners,
        feed: Feed,
        folder: Path,
        run_spec: Callable[[JobRecord], str],
        *,
        capacity: int,
        per_owner: int | None,
        private: Sequence[Path],
        log: Callable[[str], None],
    ) -> None:
        self.capacity = capacity
        self._store = store
        self._runners = runners
        self._feed = feed
        self._folder = folder
        self._run_spec = run_spec
        self._per_owner = per_owner
        self._private = private
        self._log = log
        self._active: dict[str, _Active] = {}
        self._waiting: list[Waiting] = []
        # Deaths in a row of each job's step loop, and the step after which the last one happened.
        self._deaths: dict[str, tuple[int, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._draining = asyncio.Event()

    def job_folder(self, job_id: str) -> Path:
        """Where a job's files are."""
        return self._folder / job_id

    async def start(self) -> None:
        """Takes up what an earlier service left, and dispatches from now on."""
        for left in await asyncio.to_thread(self._store.unfinished):
            record = left
            if left.state in HOLDS_WORKERS:
                record = await self.change(left.job_id, after_run("INTERRUPTED", left.intent), _RESTARTED)
            asked, most = record.scale or record.workers, min(self.capacity, self._per_owner or self.capacity)
            if record.state is JobState.QUEUED and asked > most:
                reason = f"it asks for {asked} workers, and this service has {most} for it"
                await self.change(record.job_id, JobState.FAILED, reason)
        self._spawn(self._dispatch())
        self.wake()

    def wake(self) -> None:
        """Says that jobs or workers may have become available."""
        self._changed.set()

    async def drain(self) -> None:
        """Stops every job with a checkpoint; they wait for the next service."""
        self._draining.set()
        self.wake()
        for job_id in list(self._active):
            await self.stop(job_id)
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def stop(self, job_id: str) -> None:
        """Has a job's run stop with a checkpoint; nothing if it does not run."""
        active = self._active.get(job_id)
        if active and active.runner:
            await active.runner.send(Stop())

    async def scale(self, job_id: str, workers: int) -> bool:
        """Has a job's run go on with so many workers; False where so many are not free."""
        active = self._active.get(job_id)
        if active is None:
            return True
        if workers - active.workers > self.free:
            return False
        active.workers = workers
        if active.runner:
            await active.runner.send(Scale(workers))
        self.wake()
        return True

    @property
    def free(self) -> int:
        """Workers that no job holds."""
        return self.capacity - sum(active.workers for active in self._active.values())

    @property
    def running(self) -> int:
        """Jobs that hold workers."""
        return len(self._active)

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def queue_position(self, job_id: str) -> int | None:
        """Jobs that are started before a queued one."""
        return queue_position(job_id, self._waiting)

    async def change(self, job_id: str, state: JobState, reason: str, **more: Any) -> JobRecord:
        """Records a job's state and tells its watchers."""
        record = await asyncio.to_thread(self._store.change, job_id, state=state, reason=reason, at=time.time(), **more)
        await self._feed.announce(job_id, record.last_sequence)
        return record

    async def _dispatch(self) -> None:
        while not self._draining.is_set():
            await self._changed.wait()
            self._changed.clear()
            self._waiting = [
                Waiting(record.job_id, record.owner, record.priority, record.created_at, record.scale or record.workers)
                for record in await asyncio.to_thread(self._store.unfinished)
                if record.state is JobState.QUEUED and record.job_id not in self._active
            ]
            running = [Running(job_id, active.owner, active.workers) for job_id, active in self._active.items()]
            begin = next_jobs(self._waiting, running, capacity=self.capacity, per_owner=self._per_owner)
            for job in [] if self._draining.is_set() else begin:
                self._waiting.remove(job)
                self._active[job.job_id] = _Active(job.owner, job.workers)
                self._spawn(self._run(job.job_id))

    async def _run(self, job_id: str) -> None:
        """A run of a job, from the moment its workers are free to what comes after it."""
        active = self._active[job_id]
        try:
            record = await self.change(job_id, JobState.STARTING, "", expect={JobState.QUEUED})
            active.runner = await self._runners.acquire(active.workers)
            try:
                ended = await self._follow(record, active.runner)
            finally:
                self._runners.release(active.runner)
            await self._record_end(job_id, ended)
        except (StaleError, JobGoneError):
            pass  # paused, cancelled or deleted before it could begin
        except ShardsgdError as error:
            # No process or no disk to run it in.
            self._log(f"{job_id}: {error}")
            await self._record_end(job_id, Ended("FAILED", str(error), None, False))
        finally:
            del self._active[job_id]
            self.wake()

    async def _follow(self, record: JobRecord, runner: Runner) -> Ended:
        """Runs a job in a process and records what happens; how the run ended."""
        job_id = record.job_id
        position = await asyncio.to_thread(self._store.position, job_id)
        run_spec = await asyncio.to_thread(self._run_spec, record)
        await runner.send(Run(job_id, run_spec, str(self.job_folder(job_id)), position, record.scale))
        now = await asyncio.to_thread(self._store.get, job_id)
        if self._draining.is_set() or now is None or now.intent is not Intent.RUN:
            # Asked for before there was a process to be told.
            await runner.send(Stop())
        async for message in runner.messages():
            match message:
                case FirstStep():
                    await self.change(job_id, JobState.RUNNING, "")
                case Happened():
                    last = await asyncio.to_thread(self._store.append, job_id, message.events)
                    await self._feed.announce(job_id, last)
                case Ended(outcome="INTERRUPTED", reason=str(why)) if why:
                    return await self._after_loss(job_id, why)
                case Ended():
                    self._deaths.pop(job_id, None)
                    return message
        return await self._after_loss(job_id, f"its step loop died: {await runner.ended()}")

    async def _after_loss(self, job_id: str, reason: str) -> Ended:
        """What becomes of a job whose step loop, or Ray, has died: it is tried again, but not for ever."""
        step = (await asyncio.to_thread(self._store.position, job_id)).step
        deaths, at = self._deaths.get(job_id, (0, -1))
        deaths = deaths + 1 if step == at else 1
        self._deaths[job_id] = deaths, step
        self._log(f"{job_id}: {reason}")
        if deaths < _MOST_DEATHS:
            return Ended("INTERRUPTED", reason, None, False)
        del self._deaths[job_id]
        where = "before its first step" if step < 0 else f"after step {step}"
        return Ended("FAILED", f"{reason}; {_MOST_DEATHS} times in a row {where}", None, False)

    async def _record_end(self, job_id: str, ended: Ended) -> None:
        """Records how a run ended, however long the disk takes to have room for it."""
        while not self._draining.is_set():
            try:
                return await self._ended(job_id, ended)
            except DiskFullError as error:
                self._log(f"{job_id}: {error}; {ended.outcome} is to be recorded")
                await asyncio.sleep(_DISK_FULL_SECONDS)
        return await self._ended(job_id, ended)

    async def _ended(self, job_id: str, ended: Ended) -> None:
        record = await asyncio.to_thread(self._store.get, job_id)
        assert record is not None, "only jobs that have ended can be deleted"
        outcome: Outcome = ended.outcome
        state = after_run(outcome, record.intent)
        reason = ended.reason
        if outcome == "INTERRUPTED" and self._draining.is_set():
            reason = "the service stopped"
        elif state in (JobState.PAUSED, JobState.CANCELLED):
            reason = ""
        await self.change(job_id, state, without_folders(reason, self._private), summary=ended.summary)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log(f"a task of the dispatcher failed: {error!r}")
