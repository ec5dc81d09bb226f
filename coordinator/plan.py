"""The plan: which worker computes which units of a round. Pure, so every case can be a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from shardsgd.workers.exchange import WorkerId

Range = tuple[int, int]


def plan(missing: Sequence[Range], workers: Sequence[WorkerId]) -> Mapping[WorkerId, tuple[Range, ...]]:
    """Shares the missing units out, in order and evenly: shares differ by at most one unit.

    Units are leaves of a step, blocks of its update, or chunks of an evaluation. With nothing computed yet each worker gets
    one contiguous range.

    Args:
        missing: disjoint half-open ranges of units, ascending.
        workers: who can compute, at least one.

    Returns:
        Ranges of each worker; workers without a share are left out.
    """
    return _plan(tuple(missing), tuple(sorted(workers)))


@lru_cache(maxsize=64)
def _plan(missing: tuple[Range, ...], workers: tuple[WorkerId, ...]) -> Mapping[WorkerId, tuple[Range, ...]]:
    """`plan`, remembered: most steps are planned like the one before."""
    units = [unit for start, stop in missing for unit in range(start, stop)]
    shares: dict[WorkerId, tuple[Range, ...]] = {}
    taken = 0
    for position, worker in enumerate(workers):
        size = len(units) // len(workers) + (position < len(units) % len(workers))
        if size:
            shares[worker] = _ranges(units[taken : taken + size])
        taken += size
    return shares


def _ranges(units: Sequence[int]) -> tuple[Range, ...]:
    """Ascending units as the fewest ranges."""
    ranges: list[Range] = []
    for unit in units:
        if ranges and ranges[-1][1] == unit:
            ranges[-1] = (ranges[-1][0], unit + 1)
        else:
            ranges.append((unit, unit + 1))
    return tuple(ranges)
