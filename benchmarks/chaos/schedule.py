"""Random faults, the same for the same seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from shardsgd.workers.faults import During, Fault, Kind, Point

T = TypeVar("T")

MEAN_STEPS = 5
WORKERS = 2
# What of a hundred faults is of which kind.
_SHARES: dict[Kind, int] = {
    "kill": 18,
    "segfault": 11,
    "exit": 11,
    "raise": 9,
    "stop": 8,
    "stuck": 8,
    "slow": 13,
    "corrupt": 8,
    "nan": 8,
    "notice": 6,
}
_POINTS: dict[Point, int] = {"before compute": 4, "before reply": 4, "after reply": 2}
_DURING: dict[During, int] = {"gradients": 95, "evaluation": 5}
_DURING_WITH_UPDATES: dict[During, int] = {"gradients": 63, "update": 33, "evaluation": 4}
_AT_START, _OF_ONE_WORKER = 0.06, 0.2
_START_KINDS: tuple[Kind, ...] = ("kill", "segfault", "exit", "raise", "slow", "notice")
# A worker that hangs while it starts, or in the first evaluation of its life, is given up only after a minute or two; with all
# of them hanging at a time the job would fail, as it should, for want of workers. So many starts take longer than that.
_ONE_LONG_HANG_IN, _STARTS_BETWEEN_HANGS = 250, 150
_HANGS = ("stop", "stuck")
# Two of these at the same units of a step are the same error, or the same wrong bits, of two workers: the job's own, by design.
_ALIKE = ("raise", "corrupt", "nan")
_APART_STEPS = 4
_SLOW_SECONDS = (0.05, 0.3)
# Each costs a worker, and so makes another one start.
_LETHAL_SHARE = 0.6


def faults(count: int, *, seed: int, steps_per_epoch: int, updates: bool) -> list[Fault]:
    """Faults at gaps of 0 … 2·`MEAN_STEPS` steps, ascending, but for those at the starts of workers, which come first.

    Args:
        count: how many.
        seed: of every choice.
        steps_per_epoch: evaluations are so far apart.
        updates: whether workers update.
    """
    # A generator of its own, not for secrets.
    chance = random.Random(seed)
    starting = round(count * _AT_START)
    running = count - starting
    long_hangs = count // _ONE_LONG_HANG_IN
    step, last_alike, drawn = 0, {}, []
    for _ in range(running):
        step += chance.randint(0, 2 * MEAN_STEPS)
        fault = _in_a_step(chance, step + 1, updates)
        if fault.during == "evaluation" and fault.kind in _HANGS:
            long_hangs -= 1
            fault = fault if long_hangs >= 0 else replace(fault, kind="kill")
        if fault.kind in _ALIKE:
            apart = _APART_STEPS + (2 * steps_per_epoch if fault.during == "evaluation" else 0)
            near = fault.at - last_alike.get((fault.kind, fault.during), -apart) < apart
            last_alike[fault.kind, fault.during] = last_alike.get((fault.kind, fault.during), 0) if near else fault.at
            fault = replace(fault, kind="exit") if near else fault
        drawn.append(fault)
    return _at_starts(chance, starting, count) + drawn


def _in_a_step(chance: random.Random, at: int, updates: bool) -> Fault:
    kind = _drawn(chance, _SHARES)
    during = _drawn(chance, _DURING_WITH_UPDATES if updates else _DURING)
    if kind in ("corrupt", "nan"):
        return Fault(kind, at)
    fault = Fault(kind, at, _drawn(chance, _POINTS), during=during)
    if kind == "slow":
        fault = replace(fault, seconds=round(chance.uniform(*_SLOW_SECONDS), 3))
    of_one = kind != "raise" and during != "evaluation" and chance.random() < _OF_ONE_WORKER
    return replace(fault, worker=chance.randrange(WORKERS)) if of_one else fault


def _at_starts(chance: random.Random, number: int, count: int) -> list[Fault]:
    """Of workers that replace those that faults cost: not of the first ones, and not of more than there will be."""
    starts = range(WORKERS, WORKERS + max(number, int(count * _LETHAL_SHARE)))
    hanging = starts[::_STARTS_BETWEEN_HANGS][: count // _ONE_LONG_HANG_IN]
    others = sorted(chance.sample([start for start in starts if start not in hanging], number - len(hanging)))
    drawn = [Fault("stop", start, "start") for start in hanging]
    for start in others:
        kind = chance.choice(_START_KINDS)
        drawn.append(
            Fault(kind, start, "start", seconds=round(chance.uniform(*_SLOW_SECONDS), 3) if kind == "slow" else 0.0)
        )
    return drawn


def _drawn(chance: random.Random, shares: Mapping[T, int]) -> T:
    return chance.choices(list(shares), weights=list(shares.values()))[0]
