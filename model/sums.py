"""Adding gradients: along the reduction tree, block by block, with the squared norm of every sum on the way.

Always NumPy, whoever adds: XLA may flush subnormal sums to zero. A job that diverges overflows here; that is found out by the
norms and reported once, hence no warnings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.layout import Flat, Layout, block_spans

_NORM_ROW = 1024


class LeafGradient(NamedTuple):
    """A gradient as the leaf program leaves it.

    Attributes:
        arrays: in the layout's order, each flattened.
    """

    arrays: tuple[Flat, ...]


Summand = Flat | LeafGradient


class Norms(NamedTuple):
    """Squared norms noted while adding.

    Attributes:
        left: of the left summand, if that was a leaf's; otherwise it is known.
        right: of the right one, likewise.
        total: of the sum.
    """

    left: float
    right: float
    total: float


class Adder:
    """Adds gradients of one layout. Each block is read once, and its norms are taken while it is in the cache."""

    def __init__(self, layout: Layout) -> None:
        self._blocks = layout.blocks
        self._pieces = layout.pieces

    def copy(self, leaf: LeafGradient, out: Flat) -> float:
        """Writes a leaf's gradient to a buffer whose padding is zero; returns its squared norm."""
        norm = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for pieces in self._pieces:
                for entry, within, where in pieces:
                    part = leaf.arrays[entry][within]
                    np.copyto(out[where], part)
                    norm += block_squared_norm(part)
        return norm

    def add(self, left: Summand, right: Summand, out: Flat) -> Norms:
        """`out` = left + right; `out` may be one of them, and its padding is zero."""
        norms = [0.0, 0.0, 0.0]

        def part(side: int, entry: int, within: slice, where: slice) -> Flat:
            summand = (left, right)[side]
            if not isinstance(summand, LeafGradient):
                return summand[where]
            norms[side] += block_squared_norm(summand.arrays[entry][within])
            return summand.arrays[entry][within]

        of_leaves = isinstance(left, LeafGradient) or isinstance(right, LeafGradient)
        with np.errstate(over="ignore", invalid="ignore"):
            for span, pieces in zip(self._blocks, self._pieces, strict=True):
                for entry, within, where in pieces if of_leaves else ((0, span, span),):
                    np.add(part(0, entry, within, where), part(1, entry, within, where), out=out[where])
                norms[2] += block_squared_norm(out[span])
        return Norms(*norms)


def add_block(left: Flat, right: Flat, out: Flat) -> float:
    """`out` = left + right, for blocks; returns ‖out‖² with the bits that `Adder` adds up."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.add(left, right, out=out)
        return block_squared_norm(out)


def in_order(values: Iterable[float]) -> float:
    """Σ values from left to right, each sum rounded; from Python 3.12 on `sum` compensates, which adding in parts cannot."""
    return reduce(add, values, 0.0)


def squared_norm(flat: NDArray[Any]) -> float:
    """‖flat‖²: the squared norms of its blocks, added in order, in float64.

    Not finite exactly if the buffer is not, short of float64's own range.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return in_order(block_squared_norm(flat[span]) for span in block_spans(flat.size))


def block_squared_norm(block: NDArray[Any]) -> float:
    """‖block‖²: dot products of rows in the buffer's dtype, their sum in float64 (all of it where that overflows).

    The rows are so short that no BLAS shares one out over threads: the same bits whatever process asks.
    """
    rest = block.size % _NORM_ROW
    if rest == block.size:
        total = float(np.vecdot(block, block))
        return total if math.isfinite(total) else _squared_norm_in_float64(block)
    rows, tail = block[: block.size - rest].reshape(-1, _NORM_ROW), block[block.size - rest :]
    total = in_order(np.vecdot(rows, rows).tolist())
    if rest:
        total += float(np.vecdot(tail, tail))
    return total if math.isfinite(total) else _squared_norm_in_float64(block)


def _squared_norm_in_float64(block: NDArray[Any]) -> float:
    return float(np.square(block, dtype=np.float64).sum())
