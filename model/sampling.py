"""Which rows a leaf holds: a counter-based sampler, so that any worker can compute any leaf of any step.

Random numbers are raw 64-bit words of Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
keyed by the job's seed and a stream, with the epoch or step as the high word of the counter. NumPy promises the raw words of
a bit generator across versions, which it does not for `Generator.permutation`; so permutations are built here from raw words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 20


class Stream(IntEnum):
    """Independent uses of the job's seed."""

    SPLIT = 1
    DEAL = 2
    SHUFFLE = 3
    REPLACEMENT = 4
    INITIALIZE = 5
    SYNTHETIC = 6
    DRAWS = 7
    DISTINCT_DRAWS = 8


def random_words(seed: int, stream: Stream, lane: int, counter: int, count: int) -> NDArray[np.uint64]:
    """`count` uniform 64-bit words; (seed, stream, lane, counter) names them for ever.

    Args:
        seed: of the job, in [0, 2**63).
        stream: what the words are for.
        lane: a shard or parameter number, in [0, 2**32).
        counter: an epoch or step.
        count: how many words; below 2**192, after which counters would meet.
    """
    return _generator(seed, stream, lane, counter).random_raw(count)


def random_unit(seed: int, stream: Stream, lane: int, counter: int, count: int) -> NDArray[np.float64]:
    """`count` uniform numbers in [0, 1), each a multiple of 2**-53."""
    return _unit(random_words(seed, stream, lane, counter, count))


def fill_uniform(out: NDArray[Any], limit: float, seed: int, stream: Stream, lane: int, counter: int) -> None:
    """Fills a flat array, of any size in little more memory than its own, with numbers uniform in ±`limit`."""
    generator = _generator(seed, stream, lane, counter)
    for start in range(0, out.size, _PIECE):
        piece = out[start : start + _PIECE]
        piece[...] = (2 * _unit(generator.random_raw(piece.size)) - 1) * limit


def _generator(seed: int, stream: Stream, lane: int, counter: int) -> np.random.Philox:
    key = np.array([seed, (int(stream) << 32) | lane], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, counter], dtype=np.uint64))


def _unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, stream: Stream, lane: int, counter: int, count: int) -> NDArray[np.int64]:
    """A uniform permutation of 0 … count − 1: the order of `count` random words (ties, 2**-64 a pair, by position)."""
    return np.argsort(random_words(seed, stream, lane, counter, count), kind="stable")


def drawn_rows(seed: int, rows: int, batch: int, repeat: int, *, replacement: bool) -> NDArray[np.int64]:
    """A batch drawn by itself, outside of any epoch: (seed, rows, batch, repeat) names it for ever.

    Args:
        seed: of the job.
        rows: n, to draw from.
        batch: B, how many; without replacement at most n.
        repeat: which of the batches of this size, from 0.
        replacement: B independent uniform draws; otherwise one of all sets of B rows, each equally likely.

    Returns:
        [B] dealt positions, each in [0, n). O(B) work without replacement too: up to n/2 distinct rows are drawn one after the
        other, above that the rows that are left out.
    """
    stream = Stream.DRAWS if replacement else Stream.DISTINCT_DRAWS
    generator = _generator(seed, stream, batch, repeat)
    if replacement:
        return _uniform(generator, rows, batch)
    if 2 * batch <= rows:
        return _distinct(generator, rows, batch)
    kept = np.ones(rows, dtype=bool)
    kept[_distinct(generator, rows, rows - batch)] = False
    return np.flatnonzero(kept)


def _distinct(generator: np.random.Philox, rows: int, count: int) -> NDArray[np.int64]:
    """The first `count` values that are not repetitions in a sequence of uniform draws."""
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < count:
        drawn = np.concatenate([drawn, _uniform(generator, rows, count)])
        _, first = np.unique(drawn, return_index=True)
        drawn = drawn[np.sort(first)]
    return drawn[:count]


def _uniform(generator: np.random.Philox, rows: int, count: int) -> NDArray[np.int64]:
    return (_unit(generator.random_raw(count)) * rows).astype(np.int64)


@dataclass(frozen=True)
class Sampling:
    """How the rows of a job are drawn.

    The training rows, permuted once by the seed, are dealt to the shards like cards: dealt row j is row j // V of shard j % V,
    so shard sizes differ by at most one. With "shuffle", each epoch deals every row once: step k of an epoch takes the dealt
    positions [kB, (k+1)B), cut at n, through each shard's permutation of that epoch. Hence a step has exactly B rows, except
    the last of an epoch, and a leaf at most ⌈B/V⌉. With "replacement", a step's B rows are drawn uniformly from all n.

    Attributes:
        seed: of the job.
        rows: n, the training rows.
        batch: B, the rows of a step; 1 ≤ B ≤ n.
        shards: V, the logical shards; 1 ≤ V ≤ B.
        kind: "shuffle" or "replacement".
    """

    seed: int
    rows: int
    batch: int
    shards: int
    kind: Literal["shuffle", "replacement"]
    _orders: dict[int, tuple[int, NDArray[np.int32]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def leaf_rows(self) -> int:
        """Rows of a full leaf, b = ⌈B/V⌉: the fixed number of rows of the leaf program; weights mask what a leaf lacks."""
        return -(-self.batch // self.shards)

    @property
    def steps_per_epoch(self) -> int:
        """⌈n/B⌉. With replacement an epoch is as many draws as there are rows, rounded up to a step."""
        return -(-self.rows // self.batch)

    def shard_rows(self, shard: int) -> int:
        """How many training rows `shard` holds."""
        return _dealt(self.rows, shard, self.shards)

    def leaf_count(self, shard: int, step: int) -> int:
        """How many rows (of weight 1) `shard`'s leaf has in `step`; 0 is possible in the last step of an epoch."""
        start, stop = self._dealt_range(step)
        return _dealt(stop, shard, self.shards) - _dealt(start, shard, self.shards)

    def leaf_counts(self, step: int) -> list[int]:
        """`leaf_count` of every shard, in order."""
        start, stop = self._dealt_range(step)
        (whole_before, more_before), (whole, more) = divmod(start, self.shards), divmod(stop, self.shards)
        each = whole - whole_before
        return [each + (shard < more) - (shard < more_before) for shard in range(self.shards)]

    def step_rows(self, step: int) -> int:
        """Σ of the weights of a step: B, or less in the last step of a shuffled epoch."""
        start, stop = self._dealt_range(step)
        return stop - start

    def rows_before(self, step: int) -> int:
        """Rows used by all steps before `step`."""
        if self.kind == "replacement":
            return step * self.batch
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.rows + steps * self.batch

    def leaf(self, shard: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of one leaf, as (shard, row within that shard), each int64 of `leaf_count` entries."""
        if self.kind == "replacement":
            count = self.leaf_count(shard, step)
            drawn = (random_unit(self.seed, Stream.REPLACEMENT, shard, step, count) * self.rows).astype(np.int64)
            return drawn % self.shards, drawn // self.shards
        start, stop = (_dealt(edge, shard, self.shards) for edge in self._dealt_range(step))
        order = self._epoch_order(shard, step // self.steps_per_epoch)
        return np.full(stop - start, shard, dtype=np.int64), order[start:stop].astype(np.int64)

    def _epoch_order(self, shard: int, epoch: int) -> NDArray[np.int32]:
        """The shard's permutation of an epoch. Kept while the epoch lasts: every step of it takes a slice."""
        kept = self._orders.get(shard)
        if kept is None or kept[0] != epoch:
            order = permutation(self.seed, Stream.SHUFFLE, shard, epoch, self.shard_rows(shard))
            kept = self._orders[shard] = epoch, order.astype(np.int32)
        return kept[1]

    def _dealt_range(self, step: int) -> tuple[int, int]:
        if self.kind == "replacement":
            return 0, self.batch
        start = step % self.steps_per_epoch * self.batch
        return start, min(start + self.batch, self.rows)


def _dealt(rows: int, shard: int, shards: int) -> int:
    """How many of the first `rows` dealt rows went to `shard`."""
    return max(0, -(-(rows - shard) // shards))
