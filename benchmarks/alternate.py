"""Measuring contenders in turn, so that what slows the machine down for a while slows all of them down."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contender import Contender, Running, started
from benchmarks.progress import say
from benchmarks.results import Comparison

_WARM_UP = 3
_PAUSE_SECONDS = 0.05  # for what the contender before still has to do, such as its threads going to sleep


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        rounds: of all contenders.
        turn_seconds: about how long a contender works in a round.
        quick: leave out what takes long: for a smoke run.
        scratch: folder for everything that is gone in the end.
    """

    rounds: int
    turn_seconds: float
    quick: bool
    scratch: Path


def compare(work: str, contenders: Sequence[Contender], options: Options, *, rows: int = 0) -> Comparison:
    """Starts contenders, measures them in turn and ends them.

    Args:
        work: what they all do, for the tables.
        contenders: who.
        options: how.
        rows: of data in one repetition of the work, where that is of interest.
    """
    say(f"{work}:")
    with started(contenders, options.scratch) as running:
        seconds = alternate(running, options)
        details = {name: contender.finish() for name, contender in running.items()}
    return Comparison(work, seconds, details, rows)


def alternate(running: Mapping[str, Running], options: Options) -> dict[str, list[float]]:
    """Seconds a repetition by contender, one number a round. Who begins changes from round to round."""
    names = list(running)
    repetitions = {name: calibrate(contender, options.turn_seconds) for name, contender in running.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(_PAUSE_SECONDS)
            seconds[name].append(running[name].run(repetitions[name]) / repetitions[name])
        figures = "  ".join(f"{name} {1e3 * seconds[name][-1]:.3g} ms" for name in names)
        say(f"  round {number + 1}/{options.rounds}: {figures}")
    return seconds


def calibrate(contender: Running, turn_seconds: float) -> int:
    """How many repetitions take about so long; warms the contender up."""
    contender.run(_WARM_UP)
    repetitions = 1
    while (seconds := contender.run(repetitions)) < turn_seconds / 4:
        repetitions = max(2 * repetitions, math.ceil(repetitions * turn_seconds / (2 * seconds)))
    return max(1, round(repetitions * turn_seconds / seconds))
