"""The harness's end: a contender is anything that starts with a name and parameters, and obeys orders."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

from benchmarks.orders import PARAMETERS, SOCKET
from benchmarks.processes import descendants, end
from benchmarks.progress import say

_START_SECONDS, _ANSWER_SECONDS, _END_SECONDS = 300.0, 900.0, 20.0
_ACCEPT_SECONDS = 0.2
_LOG_LINES = 15


@dataclass(frozen=True)
class Contender:
    """Who takes part in a comparison.

    Attributes:
        name: in the tables.
        module: what its process runs, in `benchmarks.contenders`.
        parameters: which the module knows; numbers, texts, lists and tables.
        environment: variables of its process.
    """

    name: str
    module: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


class ContenderError(Exception):
    """A contender ended, or was silent, when it was to answer."""


class Running:
    """A contender's processes, from their start to their end.

    Args:
        contender: which.
        scratch: where to make its folder.

    Attributes:
        pid: of the process that was started; others are below it.
    """

    def __init__(self, contender: Contender, scratch: Path) -> None:
        self._name = contender.name
        folder = Path(mkdtemp(dir=scratch))
        (folder / PARAMETERS).write_text(json.dumps(contender.parameters))
        self._log = folder / "log"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._stream: IO[str] | None = None
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the harness alone, which then ends everybody in good order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.contenders.{contender.module}", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **contender.environment},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_until_ready(self) -> None:
        """Returns when the contender waits for its first order.

        Raises:
            ContenderError: it failed.
        """
        self._listener.settimeout(_ACCEPT_SECONDS)
        deadline = time.monotonic() + _START_SECONDS
        while self._connection is None:
            with suppress(TimeoutError):
                self._connection, _ = self._listener.accept()
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._error("did not start")
        self._connection.settimeout(_ANSWER_SECONDS)
        self._stream = self._connection.makefile("rw", encoding="utf-8")
        self._answer("ready")

    def run(self, repetitions: int) -> float:
        """Seconds that the contender took to do its work so many times.

        Raises:
            ContenderError: it failed.
        """
        self._order({"run": repetitions})
        return float(self._answer("seconds"))

    def finish(self) -> dict[str, float]:
        """Lets the contender end its work; returns what else it measured.

        Raises:
            ContenderError: it failed.
        """
        self._order({})
        return dict(self._answer("details"))

    def end(self) -> None:
        """Ends the contender's processes, whatever they are doing; may be called twice."""
        processes = descendants(self.pid)
        for stream in (self._stream, self._connection, self._listener):
            if stream is not None:
                with suppress(OSError):
                    stream.close()  # which tells the contender to end
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._process.kill()
        self._process.wait()
        end(processes, grace_seconds=2.0)

    def _order(self, message: Mapping[str, int]) -> None:
        assert self._stream is not None, "the contender is ready"
        try:
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()
        except OSError:
            raise self._error("ended") from None

    def _answer(self, key: str) -> Any:
        assert self._stream is not None, "the contender is ready"
        try:
            line = self._stream.readline()
        except OSError:
            raise self._error("was silent for too long, or ended") from None
        if not line:
            raise self._error("ended")
        return json.loads(line)[key]

    def _error(self, what: str) -> ContenderError:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return ContenderError("\n".join([f"{self._name}: {what}; the last lines of its output:", *lines]))


@contextmanager
def started(contenders: Sequence[Contender], scratch: Path) -> Iterator[dict[str, Running]]:
    """Contenders that wait for orders, by name, for the length of a block.

    They start one after another, because some give up when starting takes too long.
    """
    with ExitStack() as stack:
        running = {}
        for contender in contenders:
            say(f"starting {contender.name}")
            running[contender.name] = Running(contender, scratch)
            stack.callback(running[contender.name].end)
            running[contender.name].wait_until_ready()
        yield running
