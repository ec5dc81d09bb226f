"""Runs, each in a process of its own: starting them, waiting for them without waiting for ever, and reading what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.chaos.leftovers import processes_gone, remove_folders, shared_memory, things_left
from benchmarks.chaos.orders import Files, Order
from benchmarks.chaos.steplog import Done, read_steps, steps_done
from benchmarks.progress import say

_STALLED_S, _SAY_S, _POLL_S = 240.0, 20.0, 0.5
_LOG_LINES = 30


class ChaosError(Exception):
    """A run failed, or does not go on."""


class RunProcess:
    """A process that trains, and everything below it.

    Args:
        command: its arguments after Python's name.
        folder: what it prints goes to `log` there.
        environment: beside this process's.

    Attributes:
        pid: its number.
    """

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = Files(folder).log
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the harness alone.
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None if the process has not ended within so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """`kill -9` of this one process."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Ends it and everything below; its own clean-up, which outlives it, gets the time to do that."""
        self.kill()
        processes_gone()
        remove_folders(self.pid)

    def stalled(self) -> ChaosError:
        """Says where it is stuck."""
        os.kill(self.pid, signal.SIGUSR1)  # faulthandler writes the stacks of all threads
        self.wait(1.0)
        return self.error("goes on no more")

    def error(self, what: str) -> ChaosError:
        """An error with the last lines of the output."""
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return ChaosError("\n".join([f"the run {what}; the last lines of its output:", *lines]))


@contextmanager
def started(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[RunProcess]:
    """A run's process for the length of a block."""
    process = RunProcess(command, folder, environment)
    try:
        yield process
    finally:
        process.end()


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes:
        files: of its folder.
        summary: as in summary.json.
        stages: of a walk.
        steps: and when they were done.
        incidents: and when they happened.
        metrics: lines of metrics.jsonl.
        left: what it left behind.
    """

    files: Files
    summary: dict[str, Any]
    stages: list[dict[str, float]]
    steps: list[Done]
    incidents: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    left: list[str]

    @property
    def step_lines(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl that are about steps."""
        return [line for line in self.metrics if "loss" in line]


def train(
    order: Order,
    scratch: Path,
    progress: Callable[[Files], str] = lambda files: f"step {steps_done(files.steps)}",
    alongside: Callable[[RunProcess, Files], None] | None = None,
) -> Finished:
    """Carries an order out.

    Args:
        order: for `trainer`.
        scratch: where to make its folder.
        progress: what to say of it now and then.
        alongside: called again and again while it runs; may wait for a little.

    Raises:
        ChaosError: it failed, or has not done anything for minutes.
    """
    files = Files(Path(mkdtemp(dir=scratch)))
    order.write(files)
    segments = shared_memory()
    with started(["-m", "benchmarks.chaos.trainer", str(files.folder)], files.folder) as process:
        code = _watch(process, files, progress, alongside)
        _, left = processes_gone()
        left += things_left(process.pid, segments)
        if code != 0:
            raise process.error(f"ended with exit code {code}")
    result = json.loads(files.result.read_text())
    return Finished(
        files=files,
        summary=result["summary"],
        stages=result["stages"],
        steps=read_steps(files.steps),
        incidents=_lines(files.incidents),
        metrics=_lines(files.metrics),
        left=left,
    )


def _watch(
    process: RunProcess,
    files: Files,
    progress: Callable[[Files], str],
    alongside: Callable[[RunProcess, Files], None] | None,
) -> int:
    """The exit code of a process that is not stuck."""
    began = changed_at = said_at = time.monotonic()
    before: tuple[int, ...] = ()
    while (code := process.wait(_POLL_S)) is None:
        if alongside is not None:
            alongside(process, files)
        now = time.monotonic()
        sizes = tuple(path.stat().st_size for path in (files.steps, files.incidents, files.log) if path.exists())
        if sizes != before:
            before, changed_at = sizes, now
        elif now - changed_at > _STALLED_S:
            raise process.stalled()
        if now - said_at > _SAY_S:
            said_at = now
            say(f"    {now - began:.0f} s: {progress(files)}")
    return code


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
