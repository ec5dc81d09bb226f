"""The runners: processes in which jobs run, kept warm between two jobs, over one Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from shardsgd.coordinator.service.keeper_child import Keeper
from shardsgd.coordinator.service.runner_child import Runner
from shardsgd.errors import JobError

__all__ = ["Runner", "Runners"]

# How long a runner that was told to leave, and has no job, may take for it.
_LEAVE_S = 30.0


class Runners:
    """Starts the keeper and the runners, and keeps runners without a job warm for the next."""

    def __init__(
        self, *, capacity: int, object_store_bytes: int | None, log: Callable[[str], None], warm: int = 0
    ) -> None:
        """Starts nothing yet.

        Args:
            capacity: workers that may be kept warm, over all runners that have no job.
            object_store_bytes: for the rows and parameters of all jobs at a time; None: a share of the machine's memory.
            log: told in words what the operator may want to know.
            warm: workers that the first runner starts ahead.
        """
        self._capacity = capacity
        self._object_store_bytes = object_store_bytes
        self._log = log
        self._warm = warm
        self._keeper: Keeper | None = None
        self._starting = asyncio.Lock()
        # Without a job, the one that was released last at the end; and all.
        self._idle: list[Runner] = []
        self._all: set[Runner] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Starts Ray and a first runner.

        Raises:
            JobError: one of them could not be started; why, in words.
        """
        self._idle.append(await self._started(self._warm))

    async def acquire(self, workers: int) -> Runner:
        """A runner for a job: a warm one if there is one, else a new one.

        Args:
            workers: that the job asks for.

        Raises:
            JobError: none could be started, or Ray could not; why, in words.
        """
        usable = [runner for runner in self._idle if runner.usable]
        if not usable:
            return await self._started(0)
        # Enough workers are better than too few; beyond that, the fewer are left over or missing, the better.
        best = min(usable, key=lambda runner: (runner.workers < workers, abs(runner.workers - workers)))
        self._idle.remove(best)
        return best

    def release(self, runner: Runner) -> None:
        """Takes back a runner. It is kept if its job has ended; otherwise it stops the job with a checkpoint, and leaves."""
        if runner.busy or not runner.usable or self._closing.is_set():
            return self._dismiss(runner)
        self._idle.append(runner)
        while len(self._idle) > 1 and (
            sum(each.workers for each in self._idle) > self._capacity or len(self._idle) > self._capacity
        ):
            self._dismiss(self._idle.pop(0))
        return None

    async def close(self, grace_s: float) -> None:
        """Ends all runners, which first stop their jobs with a checkpoint, and then Ray.

        Args:
            grace_s: how long jobs may take to stop; what has not ended then is killed.
        """
        self._closing.set()
        self._idle.clear()
        for runner in self._all:
            runner.hang_up()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for runner in self._all:
            runner.kill()
        await asyncio.gather(*self._tasks)
        async with self._starting:
            if self._keeper is not None:
                await self._keeper.close()

    async def _started(self, workers: int) -> Runner:
        async with self._starting:
            if self._closing.is_set():
                raise JobError("the service is about to end")
            if self._keeper is not None and not self._keeper.alive:
                self._log(f"Ray is gone ({await self._keeper.ended()}) and is started again")
                gone, self._keeper = self._keeper, None
                await gone.close()
            if self._keeper is None:
                self._keeper = await Keeper.start(self._object_store_bytes)
            keeper = self._keeper
        runner = await Runner.start(keeper, workers)
        self._all.add(runner)
        self._keep(self._watch(runner))
        if self._closing.is_set():
            runner.hang_up()
        return runner

    async def _watch(self, runner: Runner) -> None:
        """Strikes a runner off when it has ended."""
        why = await runner.ended()
        self._all.discard(runner)
        if runner in self._idle:
            self._idle.remove(runner)
        if why != "it ended":
            self._log(f"runner {runner.pid}: {why}\n{runner.last_words}".rstrip())

    def _dismiss(self, runner: Runner) -> None:
        runner.hang_up()
        self._keep(self._end(runner))

    async def _end(self, runner: Runner) -> None:
        try:
            async with asyncio.timeout(_LEAVE_S):
                # Read, so that it need not wait for anybody to do so.
                async for _ in runner.messages():
                    pass
        except TimeoutError:
            runner.kill()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
