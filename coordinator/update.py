"""The second half of a step: finishing the reduction tree and updating, in the coordinator or shared out over the workers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from shardsgd.coordinator.rounds import Rounds
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.model.state import BlockUpdates, Updater
from shardsgd.model.sums import in_order
from shardsgd.model.tree import Node, above
from shardsgd.workers.exchange import Exchange, Gradients, UpdateRequest, Updates, WorkerId


@dataclass(frozen=True)
class StepUpdate:
    """What an update gives beside θ_{t+1} and the optimizer's state, which lie in the exchange's other state.

    Attributes:
        norms: ‖sum‖² of every node of the tree.
        squared_norms: of each array of g, in the layout's order, regularizer included.
        regularizer: r(θ_t).
        finite: whether θ_{t+1} is.
        worker_seconds: what each worker that took part spent on it.
    """

    norms: Mapping[Node, float]
    squared_norms: tuple[float, ...]
    regularizer: float
    finite: bool
    worker_seconds: Mapping[WorkerId, float]

    @property
    def gradient_squared_norm(self) -> float:
        """‖g‖²."""
        return in_order(self.squared_norms)


class StepUpdater:
    """Makes θ_{t+1} of θ_t and a step's gradients: here, or where that is faster by the workers in a second round."""

    def __init__(self, problem: Problem, exchange: Exchange, rounds: Rounds) -> None:
        self._problem = problem
        self._exchange = exchange
        self._rounds = rounds
        self._updater = Updater(problem)
        # Which of all blocks' pieces are an array's: neighbours, as both are in the buffer's order.
        owners = [piece.entry for pieces in problem.layout.pieces for piece in pieces]
        self._of_arrays = [
            slice(bisect_left(owners, number), bisect_right(owners, number)) for number in range(owners[-1] + 1)
        ]

    def update(self, gradients: Sequence[Gradients], step: int, rate: float, current: int) -> StepUpdate:
        """Fills the exchange's state that is not the current one.

        Args:
            gradients: of all leaves.
            step: t.
            rate: lr(t).
            current: number of the state that holds θ_t.

        Raises:
            JobError: see `Rounds.run`.
        """
        sampling = self._problem.sampling
        rows = sampling.step_rows(step)
        sums = {node: total for part in gradients for node, total in part.sums.items()}
        seconds: Mapping[WorkerId, float] = {}
        made: BlockUpdates | None = None
        if self._exchange.updates and self._problem.shares_updates:
            holders = tuple(sorted((node, part.worker) for part in gradients for node in part.sums))
            made, seconds = self._by_the_workers(step, rows, rate, holders)
        # An update that is not finite is computed once more, here, before the job is said to diverge.
        if made is None or not made.finite.all():
            before, after = self._exchange.states[current], self._exchange.states[1 - current]
            made = self._updater.update(range(self._updater.blocks), sums, rows, rate, before, after)
        norms = {node: norm for part in gradients for node, norm in part.norms.items()}
        # Added in the blocks' order, as for the nodes that workers finish: the same bits wherever a node was finished.
        added = (in_order(by_block) for by_block in made.norms.tolist())
        pieces = made.squared_norms.tolist()
        return StepUpdate(
            norms=norms | dict(zip(above(sums, sampling.shards), added, strict=True)),
            squared_norms=tuple([in_order(pieces[of_array]) for of_array in self._of_arrays]),
            regularizer=in_order(made.regularizer.tolist()),
            finite=bool(made.finite.all()),
            worker_seconds=seconds,
        )

    def regularizer(self, theta: Flat) -> float:
        """r(θ)."""
        return self._updater.regularizer(theta)

    def _by_the_workers(
        self, step: int, rows: int, rate: float, holders: tuple[tuple[Node, WorkerId], ...]
    ) -> tuple[BlockUpdates, Mapping[WorkerId, float]]:
        replies = self._rounds.run(
            self._updater.blocks,
            lambda version, start, stop: UpdateRequest(step, version, start, stop, rows, rate, holders),
            # Two workers would write to the same memory.
            repeatable=False,
        )
        parts = sorted(cast(Sequence[Updates], replies), key=lambda part: part.request.start)
        seconds: dict[WorkerId, float] = {}
        for part in parts:
            seconds[part.worker] = seconds.get(part.worker, 0.0) + part.seconds
        by_field = zip(*(part.made for part in parts), strict=True)
        return BlockUpdates(*(np.concatenate(arrays, axis=-1) for arrays in by_field)), seconds
