"""The plan of a round: who computes what, who has hung, whose share is computed twice. Pure, so every case can be a test."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from shardsgd.workers.exchange import WorkerId

Range = tuple[int, int]


@dataclass(frozen=True)
class Patience:
    """How long an answer may take.

    Attributes:
        hang_seconds: a worker that is later than this, and than ten times what is usual, has hung.
        late_seconds: a share that is later than this, and than four times what is usual, is given to idle workers too.
        first_seconds: in place of `hang_seconds` where nothing is usual yet, or a worker may have to compile.
    """

    hang_seconds: float = 5.0
    late_seconds: float = 0.05
    first_seconds: float = 60.0


_HANG_FACTOR, _LATE_FACTOR = 10, 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under way.

    Attributes:
        worker: who was asked.
        start: first unit.
        stop: one past the last unit.
        at: when, by the clock.
        queue: units the worker had to compute from then on to have done with these.
        current: whether the request is of the open round; an older one only keeps its worker busy.
        first: whether the worker has never answered such a request.
    """

    worker: WorkerId
    start: int
    stop: int
    at: float
    queue: int
    current: bool = True
    first: bool = False


@dataclass(frozen=True)
class Again:
    """Units to be computed once more, because an answer is doubtful or the computation failed.

    Attributes:
        start: first unit.
        stop: one past the last unit.
        by: workers that have computed them already; somebody else should, if there is anybody else.
    """

    start: int
    stop: int
    by: tuple[WorkerId, ...]


@dataclass(frozen=True)
class RoundState:
    """Where a round stands.

    Attributes:
        units: how many there are: leaves of a step, blocks of its update, or chunks of an evaluation.
        done: units that have been answered, also those whose answer is in doubt.
        asked: requests under way.
        again: units to be computed again.
        unit_seconds: what a unit usually takes; None while that is not known.
        repeatable: whether two workers may compute the same unit at a time. Not where both would write to the same memory.
        begins: whether nothing of this round has been asked yet.
    """

    units: int
    done: Collection[int]
    asked: Sequence[Asked]
    again: Sequence[Again]
    unit_seconds: float | None
    repeatable: bool
    begins: bool = False


@dataclass(frozen=True)
class Ask:
    """Ask a worker for the units start … stop − 1.

    Attributes:
        worker: whom.
        start: first unit.
        stop: one past the last.
        reason: in words; empty for its share of a round that begins.
        repeats: whether somebody has been asked for them before.
    """

    worker: WorkerId
    start: int
    stop: int
    reason: str = ""
    repeats: bool = False


@dataclass(frozen=True)
class Kill:
    """End a worker's process."""

    worker: WorkerId
    reason: str


Decision = Ask | Kill


def decide(now: float, members: Collection[WorkerId], state: RoundState, patience: Patience) -> Sequence[Decision]:
    """What to do in a round, with reasons.

    A worker that hangs is killed. Units that nobody computes are shared out, to workers without anything to do if there are
    any. Units to be computed again go to somebody else. What is late is given to workers without anything to do as well: the
    first answer counts, and it cannot matter which, because both are the same bits.

    Args:
        now: by the clock that `Asked.at` is by.
        members: workers that can be asked.
        state: of the round.
        patience: what is late, and what has hung.
    """
    hung = {asked.worker: now - asked.at for asked in state.asked if now - asked.at >= _hangs(asked, state, patience)}
    decisions: list[Decision] = [Kill(worker, f"no answer for {waited:.3g} s") for worker, waited in hung.items()]
    able = sorted(set(members) - hung.keys())
    if not able:
        return decisions
    # Where units can be computed twice nobody waits until a worker that hung is dead.
    awaited = [asked for asked in state.asked if asked.current and not (state.repeatable and asked.worker in hung)]
    busy = {asked.worker for asked in state.asked}
    taken = {unit for asked in awaited for unit in range(asked.start, asked.stop)}
    missing = [unit for unit in range(state.units) if unit not in taken and unit not in state.done]
    if missing:
        shares = plan(_ranges(missing), [worker for worker in able if worker not in busy] or able)
        reason = "" if state.begins else "nobody computes them"
        repeats = not state.begins
        decisions += [Ask(worker, *units, reason, repeats) for worker, ranges in shares.items() for units in ranges]
        busy |= shares.keys()
    under_way = [(asked.start, asked.stop) for asked in awaited]
    for again in state.again:
        # Not beside parts of it that others are at, or have been asked for just now: see `OpenRound`.
        if any(start < again.stop and again.start < stop for start, stop in under_way):
            continue
        under_way.append((again.start, again.stop))
        worker = _somebody_else(again, able, busy)
        decisions.append(Ask(worker, again.start, again.stop, f"worker {again.by[-1]} has to be checked", repeats=True))
        busy.add(worker)
    if state.repeatable:
        decisions += _duplicates(now, [worker for worker in able if worker not in busy], awaited, state, patience)
    return decisions


def _duplicates(
    now: float, idle: list[WorkerId], awaited: Sequence[Asked], state: RoundState, patience: Patience
) -> Iterable[Ask]:
    for late in awaited:
        others = [other for other in awaited if other is not late]
        doubled = any(other.start < late.stop and late.start < other.stop for other in others)
        wanted = [unit for unit in range(late.start, late.stop) if unit not in state.done]
        if idle and wanted and not doubled and now - late.at >= _is_late(late, state, patience):
            shares = plan(_ranges(wanted), idle)
            yield from (
                Ask(worker, *units, f"worker {late.worker} is late", repeats=True)
                for worker, ranges in shares.items()
                for units in ranges
            )
            idle = [worker for worker in idle if worker not in shares]


def _somebody_else(again: Again, able: Sequence[WorkerId], busy: Collection[WorkerId]) -> WorkerId:
    return min(able, key=lambda worker: (again.by.count(worker), worker in busy, worker))


def _hangs(asked: Asked, state: RoundState, patience: Patience) -> float:
    least = patience.first_seconds if asked.first or state.unit_seconds is None else 0.0
    return max(patience.hang_seconds, least, _HANG_FACTOR * (state.unit_seconds or 0.0) * asked.queue)


def _is_late(asked: Asked, state: RoundState, patience: Patience) -> float:
    if state.unit_seconds is None:
        return patience.hang_seconds
    return max(patience.late_seconds, _LATE_FACTOR * state.unit_seconds * asked.queue)


def plan(missing: Sequence[Range], workers: Sequence[WorkerId]) -> Mapping[WorkerId, tuple[Range, ...]]:
    """Shares the missing units out, in order and evenly: shares differ by at most one unit.

    With nothing computed yet each worker gets one contiguous range.

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
