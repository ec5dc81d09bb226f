"""A contender's end of its conversation with the harness: it waits for an order without using the CPU, works, answers."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

PARAMETERS, SOCKET = "parameters.json", "orders"


class Orders:
    """Connects to the harness.

    Args:
        folder: the contender's own: the harness made it, put its parameters there and removes it.

    Attributes:
        folder: the same.
        parameters: as the contender was described.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameters: dict[str, Any] = json.loads((folder / PARAMETERS).read_text())
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(folder / SOCKET))
        self._stream = self._connection.makefile("rw", encoding="utf-8")
        self._ready = False

    @classmethod
    def from_arguments(cls) -> Self:
        """Of a contender's process, which gets its folder as its only argument."""
        return cls(Path(sys.argv[1]))

    def next(self) -> int | None:
        """How often to do the work next; None when it is time to end. The first call says that the contender is ready."""
        if not self._ready:
            self._ready = True
            self._say({"ready": True})
        line = self._stream.readline()
        return json.loads(line).get("run") if line else None

    def answer(self, seconds: float) -> None:
        """How long an order took."""
        self._say({"seconds": seconds})

    def obey(self, work: Callable[[int], None]) -> None:
        """Obeys until it is time to end.

        Args:
            work: does the work a number of times; is timed.
        """
        while (repetitions := self.next()) is not None:
            started = time.perf_counter()
            work(repetitions)
            self.answer(time.perf_counter() - started)
        self.finish()

    def finish(self, details: Mapping[str, float] | None = None) -> None:
        """The last word: what else the contender measured, by name."""
        self._say({"details": dict(details or {})})

    def _say(self, message: Mapping[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()
        except (BrokenPipeError, ConnectionResetError):
            sys.exit("the harness has gone")
