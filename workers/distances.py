"""What a worker computes to measure the variance of gradients: squared distances of rows' and of batches' gradients from g."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.aliases import alias, finished
from shardsgd.model.distances import LARGE_CHUNK, SMALL_CHUNK, DistancePrograms, batch_chunk, row_chunk
from shardsgd.model.layout import Flat
from shardsgd.model.networks import Parameters
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import drawn_rows
from shardsgd.model.sums import squared_norm
from shardsgd.workers.exchange import BatchDistancesRequest, DistancesRequest, RowSource
from shardsgd.workers.rows import RowBuffers

Squared = NDArray[np.float64]


class DistanceComputer:
    """Computes distances with programs of fixed shapes; holds no state that changes an answer.

    A batch's gradient is added up in float64, chunk after chunk of its rows in the order of where they lie: so it is the same
    whoever draws it, and in memory for gradients that does not grow with the batch.
    """

    def __init__(self, problem: Problem, rows: RowSource, programs: DistancePrograms) -> None:
        self._problem = problem
        self._rows = rows
        self._programs = programs
        self._spans = [entry.span for entry in problem.layout.entries]
        self._names = [entry.name for entry in problem.layout.entries]
        self._gradient = problem.layout.zeros()
        self._aliases = {name: alias(view) for name, view in problem.layout.views(self._gradient).items()}
        self._row_buffers = RowBuffers(row_chunk(problem), problem)
        self._batch_buffers = {rows: RowBuffers(rows, problem) for rows in (SMALL_CHUNK, LARGE_CHUNK)}
        self._compiled = False

    def squared(self, request: DistancesRequest, parameters: Parameters, gradient: Flat) -> Squared:
        """[units, arrays] as in `Distances`.

        Args:
            request: which rows or batches.
            parameters: θ's arrays.
            gradient: g, flat; may be read-only.
        """
        np.copyto(self._gradient, gradient)
        if not self._compiled:
            self._compile(parameters)
        numbers = range(request.first + request.start, request.first + request.stop)
        if isinstance(request, BatchDistancesRequest):
            return np.stack([self._of_batch(request, number, parameters) for number in numbers])
        return np.stack([self._of_shard(number, parameters) for number in numbers])

    def _compile(self, parameters: Parameters) -> None:
        """Compiles all programs at the first request, which is known to take longer: a later one may not."""
        for buffers in self._batch_buffers.values():
            finished(self._programs.batch(parameters, *buffers.arguments))
        finished(self._programs.rows(parameters, self._aliases, *self._row_buffers.arguments))
        self._compiled = True

    def _of_shard(self, number: int, parameters: Parameters) -> Squared:
        x, y = self._rows.shard(number)
        buffers, total = self._row_buffers, np.zeros(len(self._spans))
        for start in range(0, len(y), len(buffers.y)):
            count = min(len(buffers.y), len(y) - start)
            buffers.x[:count], buffers.y[:count] = x[start : start + count], y[start : start + count]
            buffers.mask(count)
            total += np.asarray(finished(self._programs.rows(parameters, self._aliases, *buffers.arguments)))
        return total

    def _of_batch(self, request: BatchDistancesRequest, number: int, parameters: Parameters) -> Squared:
        sampling, batch = self._problem.sampling, request.batch
        drawn = drawn_rows(sampling.seed, sampling.rows, batch, number, replacement=request.replacement)
        # Sorted, so that what comes from one shard is read at a time. A batch is a set: its order says nothing.
        shards, rows = drawn % sampling.shards, drawn // sampling.shards
        order = np.lexsort((rows, shards))
        shards, rows = shards[order], rows[order]
        buffers = self._batch_buffers[batch_chunk(batch)]
        total = np.zeros(self._problem.layout.length)
        for start in range(0, batch, len(buffers.y)):
            chunk = slice(start, start + len(buffers.y))
            self._gather(shards[chunk], rows[chunk], buffers)
            _, gradient = finished(self._programs.batch(parameters, *buffers.arguments))
            for name, span in zip(self._names, self._spans, strict=True):
                total[span] += np.asarray(gradient[name]).reshape(-1)
        total /= batch
        total -= self._gradient
        return np.array([squared_norm(total[span]) for span in self._spans])

    def _gather(self, shards: NDArray[np.int64], rows: NDArray[np.int64], buffers: RowBuffers) -> None:
        for start, stop in _runs(shards):
            x, y = self._rows.shard(int(shards[start]))
            buffers.x[start:stop], buffers.y[start:stop] = x[rows[start:stop]], y[rows[start:stop]]
        buffers.mask(len(rows))


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of equal neighbours."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return pairwise(edges)
