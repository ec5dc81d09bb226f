"""The runners: processes in which jobs run, kept warm between two jobs, over one Ray."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from shardsgd.coordinator.service.child import Child
from shardsgd.coordinator.service.runner_messages import LONGEST_LINE, Ended, Message, Ready, Run, decode, encode
from shardsgd.errors import JobError

_PACKAGE = "shardsgd.coordinator.service"
# How long a process that was told to leave, and has no job, may take for it.
_LEAVE_S = 30.0


class Runner:
    """One process, as the service sees it.

    Attributes:
        pid: of the process.
        workers: how many workers it had warm when it said so last.
        busy: whether it was told to run a job, and has not said how that ended.
    """

    def __init__(
        self, child: Child, keeper: Keeper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = child.pid
        self.workers = 0
        self.busy = False
        self._child = child
        self._keeper = keeper
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, keeper: Keeper, workers: int) -> Self:
        """Starts a process, and waits until it can be told to run.

        Args:
            keeper: of the Ray that it joins.
            workers: that it is to start ahead.

        Raises:
            JobError: it ended at once; why, in words.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), keeper.connection.fileno())
            try:
                child = await Child.start(
                    f"{_PACKAGE}.runner", *map(str, numbers), keeper.address, str(workers),
                    descriptors=numbers, environment=keeper.settings,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise JobError(f"a process for the job could not be started: {error}") from error
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
        runner = cls(child, keeper, reader, writer)
        try:
            if not isinstance(await runner._next(), Ready):
                raise JobError(f"a process for the job could not be started: {await runner.ended()}")
        except BaseException:
            runner.kill()
            writer.close()
            raise
        return runner

    @property
    def usable(self) -> bool:
        """Whether it lives, and its Ray too."""
        return self._child.alive and self._keeper.alive

    async def send(self, message: Message) -> None:
        """Tells it something; nothing if it has ended, which `messages` will say."""
        self.busy = self.busy or isinstance(message, Run)
        with suppress(OSError):
            self._writer.write(encode(message))
            await self._writer.drain()

    async def messages(self) -> AsyncIterator[Message]:
        """What it says, from now on; ends when the process has ended."""
        while (message := await self._next()) is not None:
            yield message
        await self.ended()

    async def ended(self) -> str:
        """Waits for the end of the process, and says why it ended, in words."""
        try:
            return await self._child.ended()
        finally:
            if not self._child.alive:
                self._writer.close()

    def hang_up(self) -> None:
        """Says nothing more to it: it stops its job with a checkpoint, says how that ended, and leaves."""
        with suppress(OSError):
            self._writer.write_eof()

    def kill(self) -> None:
        """Kills the process; nothing if it has ended."""
        self._child.kill()

    @property
    def last_words(self) -> str:
        """The end of what the process wrote to its standard output and error."""
        return self._child.last_words

    async def _next(self) -> Message | None:
        try:
            line = await self._reader.readline()
            # A process that is killed may leave half a line.
            message = decode(line) if line.endswith(b"\n") else None
        except OSError:
            return None
        except ValueError:
            # Only a process that is out of its mind sends what is no message.
            self.kill()
            return None
        if isinstance(message, Ready | Ended):
            self.workers, self.busy = message.workers, False
        return message


class Keeper:
    """The process that keeps Ray, as the service sees it.

    Attributes:
        pid: of the process.
        connection: the socket that it lives as long as.
        address: of its Ray.
        settings: environment variables for those who join it.
    """

    def __init__(self, child: Child, connection: socket.socket, address: str, settings: Mapping[str, str]) -> None:
        self.pid = child.pid
        self._child = child
        self.connection = connection
        self.address = address
        self.settings = settings

    @classmethod
    async def start(cls, object_store_bytes: int | None) -> Self:
        """Starts Ray.

        Raises:
            JobError: it could not be started; why, in words.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                number = theirs.fileno()
                child = await Child.start(
                    f"{_PACKAGE}.ray_keeper", str(number), str(object_store_bytes or 0), descriptors=[number]
                )
        except OSError as error:
            ours.close()
            raise JobError(f"Ray could not be started: {error}") from error
        try:
            said = await _line(ours)
            if "address" not in said:
                raise JobError(said.get("error") or f"Ray could not be started: {await child.ended()}")
        except BaseException:
            ours.close()
            raise
        return cls(child, ours, said["address"], said["settings"])

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as this process has noticed."""
        return self._child.alive

    async def ended(self) -> str:
        """Waits for its end, and says why it ended, in words."""
        return await self._child.ended()

    async def close(self) -> None:
        """Ends Ray, once no runner needs it any more."""
        self.connection.close()
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._child.ended()
        except TimeoutError:
            self._child.kill()
            await self._child.ended()


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

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _line(connection: socket.socket) -> dict[str, Any]:
    """A line of JSON from a socket that does not block; empty if it is closed first."""
    received, loop = b"", asyncio.get_running_loop()
    while not received.endswith(b"\n"):
        more = await loop.sock_recv(connection, 2**16)
        if not more:
            return {}
        received += more
    said: dict[str, Any] = json.loads(received)
    return said
