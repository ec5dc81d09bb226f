"""The training state in memory: θ and the optimizer's slots, and how blocks of them are updated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.layout import BLOCK, Flat
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.problem import Problem
from shardsgd.model.sums import add_block, block_squared_norm, in_order
from shardsgd.model.tree import Node, above, reduce_node


def state_buffers(problem: Problem) -> int:
    """How many flat buffers two versions of the state take."""
    return 2 * (1 + problem.optimizer.slots)


class BlockUpdates(NamedTuple):
    """What updating some blocks gives, beside the new state.

    Attributes:
        norms: [nodes, blocks] squared norms of the sums that were added up, a row for each node of `tree.above`.
        squared_norms: [pieces of these blocks] of g, the gradient with regularizer: share of ‖g‖² of each part of an array in a
            block, in the order of `Layout.pieces`.
        regularizer: [blocks] share of r(θ_t).
        finite: [blocks] whether θ_{t+1} is; 0 or 1.
    """

    norms: NDArray[np.float64]
    squared_norms: NDArray[np.float64]
    regularizer: NDArray[np.float64]
    finite: NDArray[np.float64]


class Updater:
    """Updates blocks of the training state: g = (root sum)/(Σ weights) + ∇r(θ), then the optimizer.

    The same operations on every block, so it does not matter who updates which.

    Attributes:
        blocks: how many there are.
        slots: how many the optimizer has.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.blocks = len(problem.layout.blocks)
        self.slots = problem.optimizer.slots

    def buffers(self) -> StateBuffers:
        """Memory of this process for one version of the state; zeros, which is where every slot begins."""
        zeros = self._problem.layout.zeros
        return StateBuffers(zeros(), tuple(zeros() for _ in range(self.slots)))

    def update(
        self,
        blocks: range,
        sums: Mapping[Node, Flat],
        rows: int,
        rate: float,
        before: StateBuffers,
        after: StateBuffers,
    ) -> BlockUpdates:
        """Finishes the reduction tree and updates, block by block.

        Args:
            blocks: which.
            sums: of nodes that cover all leaves.
            rows: the step's Σ of weights.
            rate: lr(t).
            before: θ_t and the slots. Not changed.
            after: where their successors go.
        """
        problem = self._problem
        nodes = above(sums, problem.sampling.shards)
        norms, figures = np.zeros((len(nodes), len(blocks))), np.zeros((2, len(blocks)))
        squared_norms: list[float] = []
        # A job that diverges is found out by what this returns.
        with np.errstate(over="ignore", invalid="ignore"):
            for i, number in enumerate(blocks):
                span = problem.layout.blocks[number]
                total, added = self._add_up(sums, span)
                norms[:, i] = [added[node] for node in nodes]
                old, new, scale = before.block(span), after.block(span), 1 / rows
                norm = added.get((0, problem.sampling.shards))
                if problem.regularizer:
                    np.multiply(total, total.dtype.type(scale), out=total)
                    figures[0, i] = self._regularize(number, old.theta, total)
                    norm, scale = None, 1.0
                squared_norms += [share * scale**2 for share in self._piece_norms(number, total, norm)]
                problem.optimizer.update(total, scale, rate, old, new)
                figures[1, i] = math.isfinite(block_squared_norm(new.theta)) or np.isfinite(new.theta).all()
        return BlockUpdates(norms, np.array(squared_norms), *figures)

    def regularizer(self, theta: Flat) -> float:
        """r(θ): its blocks' shares added in order, as in an update."""
        if not self._problem.regularizer:
            return 0.0
        blocks = enumerate(self._problem.layout.blocks)
        with np.errstate(over="ignore", invalid="ignore"):
            return in_order(self._regularizer_of(number, theta[span]) for number, span in blocks)

    def _regularize(self, number: int, theta: Flat, gradient: Flat) -> float:
        """Adds a block's ∇r(θ) to its gradient; returns its share of r(θ)."""
        for weights in self._weights[number]:
            self._problem.regularizer.add_gradient(theta[weights], gradient[weights])
        return self._regularizer_of(number, theta)

    def _regularizer_of(self, number: int, theta: Flat) -> float:
        return in_order(self._problem.regularizer.value(theta[weights]) for weights in self._weights[number])

    def _piece_norms(self, number: int, block: Flat, norm: float | None) -> list[float]:
        """The squared norm of each part of an array in a block, while it is in the cache; `norm` is the whole's, if known."""
        spans = self._spans[number]
        if len(spans) == 1 and norm is not None:
            return [norm]
        return [block_squared_norm(block[span]) for span in spans]

    def _add_up(self, sums: Mapping[Node, Flat], span: slice) -> tuple[Flat, dict[Node, float]]:
        """A block of the root's sum, to be written over, and the squared norms of all that was added on the way."""
        added: dict[Node, float] = {}
        root = (0, self._problem.sampling.shards)
        total = self._total[: span.stop - span.start]
        if root in sums:
            np.copyto(total, sums[root][span])
            return total, added

        def known(node: Node) -> Flat | None:
            return sums[node][span] if node in sums else None

        def add(node: Node, left: Flat, right: Flat) -> Flat:
            value = total if node == root else np.empty_like(left)
            added[node] = add_block(left, right, value)
            return value

        reduce_node(root, known, add)
        return total, added

    @cached_property
    def _total(self) -> Flat:
        """Where a block of the root's sum is put together."""
        layout = self._problem.layout
        return np.zeros(min(BLOCK, layout.length), layout.dtype)

    @cached_property
    def _spans(self) -> list[list[slice]]:
        """Where in each block its pieces are. One alone is all of the block: the padding after it adds nothing."""
        layout = self._problem.layout
        return [
            [slice(piece.where.start - block.start, piece.where.stop - block.start) for piece in pieces]
            if len(pieces) != 1
            else [slice(0, block.stop - block.start)]
            for block, pieces in zip(layout.blocks, layout.pieces, strict=True)
        ]

    @cached_property
    def _weights(self) -> list[list[slice]]:
        """Where in each block there are weights."""
        layout = self._problem.layout
        weights = [entry.span for entry in layout.entries if entry.is_weight]
        return [
            [
                slice(max(w.start, block.start) - block.start, min(w.stop, block.stop) - block.start)
                for w in weights
                if w.start < block.stop and block.start < w.stop
            ]
            for block in layout.blocks
        ]
