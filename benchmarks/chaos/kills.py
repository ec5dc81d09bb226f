"""Throughput while somebody kills a worker every ten seconds."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from benchmarks.chaos import checks
from benchmarks.chaos.options import Options
from benchmarks.chaos.orders import Files, Order
from benchmarks.chaos.runs import Finished, RunProcess, train
from benchmarks.chaos.steplog import steps_done, steps_per_second
from benchmarks.chaos.workloads import Workload, digits, large, usual
from benchmarks.processes import command_line, descendants
from benchmarks.progress import say

GOAL = 0.8
_WORKERS = 2
_EVERY_SECONDS, _SECONDS = 10.0, 40.0
_QUICK_EVERY_SECONDS, _QUICK_SECONDS = 5.0, 10.0
_ROUNDS, _QUICK_ROUNDS = 3, 1
_WORKER_TITLE = "shardsgd-worker"


@dataclass(frozen=True)
class KillsRun:
    """Runs with kills and without in turn.

    Attributes:
        work: what was computed.
        every_seconds: from one kill to the next.
        seconds: that a run steps.
        alone: rows a second of the runs without kills, by the clock on the wall from the first step to the last.
        killed: of those with kills.
        kills: in each of these.
        checks: see `FaultsRun`.
    """

    work: str
    every_seconds: float
    seconds: float
    alone: list[float]
    killed: list[float]
    kills: list[int]
    checks: dict[str, str]

    @property
    def shares(self) -> list[float]:
        """Of the undisturbed throughput, in each round."""
        return [killed / alone for killed, alone in zip(self.killed, self.alone, strict=True)]

    @property
    def share(self) -> float:
        """The median of the shares."""
        return median(self.shares)


class Killer:
    """Kills a random worker of a run, the first one half an interval after the first step."""

    def __init__(self, every_seconds: float, chance: random.Random) -> None:
        self.kills = 0
        self._every = every_seconds
        self._chance = chance
        self._next: float | None = None

    def __call__(self, process: RunProcess, files: Files) -> None:
        """Kills if it is time; to be called again and again."""
        now = time.monotonic()
        if self._next is None:
            self._next = now + self._every / 2 if steps_done(files.steps) else None
        elif now >= self._next:
            workers = [each.pid for each in descendants(process.pid) if _WORKER_TITLE in command_line(each.pid)]
            with suppress(IndexError, ProcessLookupError):  # none is there; it has just died: at the next call
                os.kill(self._chance.choice(workers), signal.SIGKILL)
                self.kills += 1
                self._next += self._every


def measure(options: Options) -> Iterator[KillsRun]:
    """Three models, or one if it has to be quick."""
    every, seconds = (_QUICK_EVERY_SECONDS, _QUICK_SECONDS) if options.quick else (_EVERY_SECONDS, _SECONDS)
    for work in (digits(),) if options.quick else (digits(), usual(options.scratch), large(options.scratch)):
        yield _measure(work, every, seconds, options)


def _measure(work: Workload, every: float, seconds: float, options: Options) -> KillsRun:
    say(f"{work.name}: runs of {seconds:g} s, in every other a kill every {every:g} s")
    chance = random.Random(options.seed)
    order = Order(work.job(stop={"seconds": seconds}, workers={"count": _WORKERS}))
    result = KillsRun(work.name, every, seconds, [], [], [], {})
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    for number in range(rounds):
        killer = Killer(every, chance)
        runs: dict[str, Finished] = {}
        for name in ("alone", "killed") if number % 2 else ("killed", "alone"):
            runs[name] = train(order, options.scratch, alongside=killer if name == "killed" else None)
        batch = work.spec["batch"]["size"]
        result.alone.append(batch * steps_per_second(runs["alone"].steps))
        result.killed.append(batch * steps_per_second(runs["killed"].steps))
        result.kills.append(killer.kills)
        _check(result.checks, runs, killer.kills)
        say(f"  round {number + 1}/{rounds}: {killer.kills} kills, {100 * result.shares[-1]:.0f} % of the throughput")
    return result


def _check(found: dict[str, str], runs: dict[str, Finished], kills: int) -> None:
    """Adds what was wrong in a round."""
    # One that is killed while it starts has not been lost, as it was never there.
    losses = sum(each["kind"] in ("lost", "start failed") for each in runs["killed"].incidents)
    for name, wrong in {
        "as many workers lost as were killed": "" if losses == kills else f"{losses} of {kills}",
        "same loss, gradient norm and noise in the steps that both have": checks.same_steps(
            runs["killed"].step_lines, runs["alone"].step_lines
        ),
        "nothing left": checks.nothing_left(runs["killed"]),
    }.items():
        found[name] = "; ".join(filter(None, [found.get(name), wrong]))
