"""The rows of a worker's program calls: gathered when a leaf needs them, or before, while the worker has nothing else to do."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from shardsgd.model.aliases import alias
from shardsgd.model.layout import aligned_zeros
from shardsgd.model.problem import Problem
from shardsgd.workers.exchange import RowSource

# Memory for rows gathered ahead; a leaf of more bytes is still gathered ahead alone, in the one buffer it needs anyway.
_AHEAD_BYTES = 16 * 2**20

Leaf = tuple[int, int]


class RowBuffers:
    """Memory that the rows of one program call are gathered into: x, y and the weights w of a fixed number of rows.

    Attributes:
        arguments: the three as XLA reads them: what they hold when a program is called, and until its results are there.
    """

    def __init__(self, rows: int, problem: Problem) -> None:
        self.x = aligned_zeros((rows, problem.network.features), problem.parameter_dtype)
        self.y = aligned_zeros((rows,), problem.label_dtype)
        self.w = aligned_zeros((rows,), problem.parameter_dtype)
        self.arguments: tuple[jax.Array, ...] = (alias(self.x), alias(self.y), alias(self.w))

    @property
    def nbytes(self) -> int:
        """Of all three."""
        return self.x.nbytes + self.y.nbytes + self.w.nbytes

    def mask(self, count: int) -> None:
        """Zeroes all but the first `count` rows and gives them weight 0, so that no earlier call's rows leave a trace."""
        self.x[count:] = 0
        self.y[count:] = 0
        self.w[:count] = 1
        self.w[count:] = 0


class RowGatherer:
    """Gathers leaves, pure functions of (shard, step), into a fixed number of buffers."""

    def __init__(self, problem: Problem, rows: RowSource) -> None:
        self._problem = problem
        self._rows = rows
        self._ahead: dict[Leaf, RowBuffers] = {}
        first = RowBuffers(problem.sampling.leaf_rows, problem)
        self._free = [first]
        self._more = min(problem.sampling.shards, _AHEAD_BYTES // first.nbytes) - 1

    def leaf(self, shard: int, step: int) -> RowBuffers:
        """A leaf's rows. They stay until the next call of a method."""
        buffers = self._ahead.pop((shard, step), None)
        if buffers is None:
            buffers = self._gathered(shard, step, self._unused() or self._ahead.pop(next(iter(self._ahead))))
        self._free.append(buffers)
        return buffers

    def gather_ahead(self, shard: int, step: int) -> bool:
        """Gathers a leaf before it is asked for. False if there is no room for it beside the others of this step."""
        for leaf in [leaf for leaf in self._ahead if leaf[1] != step]:
            self._free.append(self._ahead.pop(leaf))
        if (shard, step) in self._ahead:
            return True
        buffers = self._unused()
        if buffers is None:
            return False
        self._ahead[shard, step] = self._gathered(shard, step, buffers)
        return True

    def _unused(self) -> RowBuffers | None:
        if not self._free and self._more > 0:
            self._more -= 1
            return RowBuffers(self._problem.sampling.leaf_rows, self._problem)
        return self._free.pop() if self._free else None

    def _gathered(self, shard: int, step: int, buffers: RowBuffers) -> RowBuffers:
        try:
            self._gather(shard, step, buffers)
        except BaseException:
            self._free.append(buffers)
            raise
        return buffers

    def _gather(self, shard: int, step: int, buffers: RowBuffers) -> None:
        shards, rows = self._problem.sampling.leaf(shard, step)
        sources = [shard] if self._problem.sampling.kind == "shuffle" else np.unique(shards).tolist()
        for source in sources:
            x, y = self._rows.shard(source)
            if len(sources) == 1:
                _take(x, rows, buffers.x[: len(rows)])
                buffers.y[: len(rows)] = y[rows]
            else:
                into = np.flatnonzero(shards == source)
                buffers.x[into] = x[rows[into]]
                buffers.y[into] = y[rows[into]]
        buffers.mask(len(rows))


def _take(x: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """`out` = x[rows], in half the time where no cast is needed: indices that are known to be right need no check."""
    if x.dtype == out.dtype:
        np.take(x, rows, axis=0, out=out, mode="clip")
    else:
        out[...] = x[rows]
