"""Talking to a driver inside a node."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.cluster.errors import RigError
from benchmarks.cluster.node import Node

ANSWER_LIMIT_S = 120.0
# A call answered after more is worth a report.
LATE_S = 0.5
REPOSITORY = Path(__file__).parents[2]


class Conversation:
    """A `driver` in a node, and what it has said.

    Attributes:
        joined: the address of the node that it takes itself to be on.
    """

    def __init__(self, node: Node, ray_address: str, *, tells_its_node: bool = True) -> None:
        """Starts a driver and returns when it has joined the cluster.

        Args:
            node: in which it runs.
            ray_address: of the cluster.
            tells_its_node: whether Ray is told which node that is.

        Raises:
            RigError: it did not join.
        """
        self._words = node.folder / "driver.txt"
        with self._words.open("ab") as words:
            self._process = node.run(
                [sys.executable, "-m", "benchmarks.cluster.driver", ray_address, *([node.address] * tells_its_node)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                cwd=REPOSITORY,
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.joined: str = self._answer("joined", ANSWER_LIMIT_S)["joined"]

    def ask(self, order: dict[str, Any], answer: str) -> Any:
        """Gives an order; what the answer has under a key.

        Raises:
            RigError: the driver has ended, or no such answer came.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer(answer, ANSWER_LIMIT_S)[answer]

    def gather(self, reports: list[dict[str, Any]], enough: Callable[[], bool], limit_s: float) -> bool:
        """Adds what the driver reports to a list until there is enough of it; whether that came to pass in time.

        Args:
            reports: what was reported.
            enough: looked at after each report, and every tenth of a second.
            limit_s: to wait.

        Raises:
            RigError: the driver has ended.
        """
        deadline = time.monotonic() + limit_s
        while not enough():
            if time.monotonic() > deadline:
                return False
            if found := self._next(0.1):
                reports.append(found)
        return True

    def end(self) -> None:
        """Lets it leave the cluster and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(ANSWER_LIMIT_S)

    def _answer(self, key: str, limit_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            # What it reports between is of no interest any more.
            if (found := self._next(left)) and key in found:
                return found
        raise RigError(f"the driver did not answer with {key} in {limit_s:.0f} s")

    def _next(self, limit_s: float) -> dict[str, Any] | None:
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            return None
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _listen(self) -> None:
        assert self._process.stdout is not None
        # Closed, if the rig is taken away first.
        with suppress(ValueError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def _ended(self) -> RigError:
        lines = self._words.read_text(errors="replace").strip().splitlines()
        return RigError("the driver has ended:\n" + "\n".join(lines[-15:]))
