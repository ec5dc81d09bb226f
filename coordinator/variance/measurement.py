"""The measurement itself: g, tr Σ and distances of sampled batches, over the exchange port. Knows nothing of Ray or files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.variance.records import Samples
from shardsgd.errors import DivergedError
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.model.sums import squared_norm
from shardsgd.model.tree import reduce_node
from shardsgd.model.variance import Draw
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    Distances,
    DistancesRequest,
    Exchange,
    GradientRequest,
    Gradients,
    RowDistancesRequest,
)

# Rows of a round, about; and the fewest units, so that many workers have something to do. So progress is seen, and no answer
# takes long. No bit depends on how units are cut into rounds.
_ROUND_ROWS, _ROUND_UNITS = 1 << 16, 16

Squared = NDArray[np.float64]
# Told of rows whose gradients have been computed.
Told = Callable[[int], None]
# Of (first unit of the round, plan version, start, stop).
_MakeRequest = Callable[[int, int, int, int], DistancesRequest]


class Measurement:
    """Measures at one θ.

    First `gradient`, which leaves g where the workers read it; then the others, in any order.
    """

    def __init__(self, problem: Problem, exchange: Exchange, rounds: Rounds, theta: Flat) -> None:
        """Begins with nothing measured.

        Args:
            problem: as it is measured: its one step holds every row once.
            exchange: to the workers. θ goes to its state 0 and g to its state 1.
            rounds: over that exchange.
            theta: θ, flat.
        """
        self._problem = problem
        self._exchange = exchange
        self._rounds = rounds
        self._round = 0
        self._rehearsed = False
        np.copyto(exchange.states[0].theta, theta)

    def gradient(self) -> Squared:
        """Computes g = (1/n) Σ ∇ℓᵢ(θ); returns ‖g‖² of each parameter array.

        Raises:
            DivergedError: g is not finite.
            JobError: see `Rounds.run`.
        """
        sampling = self._problem.sampling
        self._exchange.publish(0)

        def request(version: int, start: int, stop: int) -> GradientRequest:
            return GradientRequest(0, version, start, stop)

        if self._workers < sampling.shards:
            # Otherwise a worker that is asked for thousands of leaves at once would seem to hang: see `Patience`.
            self._rounds.run(self._workers, request, rehearsal=True)
        replies = self._rounds.run(sampling.shards, request)
        sums = {node: total for part in cast(Sequence[Gradients], replies) for node, total in part.sums.items()}
        g = self._exchange.states[1].theta
        # A sum that overflows is found out below.
        with np.errstate(over="ignore", invalid="ignore"):
            total = reduce_node((0, sampling.shards), sums.get, lambda _, left, right: left + right)
            np.divide(total, total.dtype.type(sampling.rows), out=g)
        # Again: the other state has changed.
        self._exchange.publish(0)
        norms = [squared_norm(g[entry.span].astype(np.float64)) for entry in self._problem.layout.entries]
        return self._finite(np.array(norms), "the gradient")

    def traces(self, told: Told) -> Squared:
        """(1/n) Σ ‖∇ℓᵢ(θ) − g‖² of each parameter array: its tr Σ, with divisor n.

        Raises:
            DivergedError: a row's gradient is not finite.
            JobError: see `Rounds.run`.
        """
        sampling = self._problem.sampling

        def request(first: int, version: int, start: int, stop: int) -> RowDistancesRequest:
            return RowDistancesRequest(self._round, version, start, stop, first)

        squared = self._distances(sampling.shards, sampling.leaf_rows, request, told)
        sums = [math.fsum(shards) for shards in squared.T.tolist()] if np.isfinite(squared).all() else [math.nan]
        return self._finite(np.array(sums) / sampling.rows, "a row's gradient")

    def batches(self, draw: Draw, batch: int, repeats: int, told: Told) -> Samples:
        """‖g_B − g‖² of so many batches.

        Raises:
            JobError: see `Rounds.run`.
        """
        replacement = draw == "with_replacement"

        def request(first: int, version: int, start: int, stop: int) -> BatchDistancesRequest:
            return BatchDistancesRequest(self._round, version, start, stop, first, batch, replacement)

        if not self._rehearsed:
            # As for g: the first batches may be of all rows. What a row takes is learned from batches of one.
            self._rounds.run(
                self._workers,
                lambda version, start, stop: BatchDistancesRequest(self._round, version, start, stop, 0, 1, True),
                rehearsal=True,
            )
            self._rehearsed = True
        return Samples(draw, batch, self._distances(repeats, batch, request, told))

    def _distances(self, units: int, rows: int, request: _MakeRequest, told: Told) -> Squared:
        """[units, arrays], in rounds of about as many rows."""
        squared = np.empty((units, len(self._problem.layout.entries)))
        first, step = 0, max(_ROUND_UNITS, _ROUND_ROWS // rows)
        while first < units:
            self._round += 1
            # The first of them with a unit for each worker: it has to compile, and nothing is usual yet.
            count = min(step if self._round > 1 else self._workers, units - first)

            def make(version: int, start: int, stop: int, first: int = first) -> DistancesRequest:
                return request(first, version, start, stop)

            for part in cast(Sequence[Distances], self._rounds.run(count, make)):
                squared[first + part.request.start : first + part.request.stop] = part.squared
            told(count * rows)
            first += count
        return squared

    @property
    def _workers(self) -> int:
        return max(1, len(self._rounds.members.able))

    def _finite(self, values: Squared, what: str) -> Squared:
        if not np.isfinite(values).all():
            raise DivergedError(f"{what} is not finite at these parameters: there is no variance to measure")
        return values
