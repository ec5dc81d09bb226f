"""One runner, as the service sees it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from shardsgd.coordinator.service.child import Child
from shardsgd.coordinator.service.keeper_child import Keeper
from shardsgd.coordinator.service.runner_messages import LONGEST_LINE, Ended, Message, Ready, Run, decode, encode
from shardsgd.errors import JobError


class Runner:
    """A process that runs one job at a time.

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
                    "shardsgd.coordinator.service.runner", *map(str, numbers), keeper.address, str(workers),
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
