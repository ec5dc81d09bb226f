"""A child process of the service: how it is started, and why it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Self

# Of what it wrote: enough for a traceback.
_TAIL_BYTES = 16 * 2**10


class Child:
    """A module of ours that runs in a process of its own, out of reach of the service's terminal.

    It gets no input. What it writes is read, so that it never waits, and forgotten but for the end.

    Attributes:
        pid: of its process.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._tail = b""
        self._ended = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(
        cls, module: str, *arguments: str, descriptors: Sequence[int], environment: Mapping[str, str] | None = None
    ) -> Self:
        """Starts a module.

        Args:
            module: its name.
            arguments: of its command line, which every process of the machine can read.
            descriptors: files that it is to have, under the same numbers.
            environment: variables besides this process's own.

        Raises:
            OSError: there is no memory, or no process to be had.
        """
        # -P, and a working directory with nothing in it that Python would take for a module.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module, *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env={**os.environ, **(environment or {})},
            pass_fds=descriptors,
            start_new_session=True,
        )  # fmt: skip
        return cls(process)

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as this process has noticed."""
        return self._process.returncode is None

    @property
    def last_words(self) -> str:
        """The end of what it has written."""
        return self._tail.decode(errors="replace").strip()

    async def ended(self) -> str:
        """Waits for its end, and says why it ended, in words."""
        # One who waits no longer must not keep the others from it.
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """Kills it, even if it is stopped; nothing if it has ended."""
        if self.alive:
            self._process.kill()

    async def _watch(self) -> str:
        assert self._process.stdout is not None
        # Nobody inherits its output, so that this ends when it does.
        while written := await self._process.stdout.read(_TAIL_BYTES):
            self._tail = (self._tail + written)[-_TAIL_BYTES:]
        return ending(await self._process.wait(), self.last_words)


def ending(code: int, words: str) -> str:
    """Why a process ended.

    Args:
        code: its exit code; the negated number of a signal that killed it.
        words: what it wrote last.
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code == 0:
        return "it ended"
    return ": ".join([f"exit code {code}", *words.splitlines()[-1:]])
