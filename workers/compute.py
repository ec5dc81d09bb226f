"""What a worker computes: leaves and evaluation chunks, as pure functions of (θ, request)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from shardsgd.model.evaluation import EVALUATION_ROWS, chunks, evaluation_program
from shardsgd.model.layout import Flat
from shardsgd.model.leaf import leaf_program
from shardsgd.model.problem import Problem
from shardsgd.model.tree import GradientSums, Node, cover, reduce_node
from shardsgd.workers.exchange import EvaluationRequest, Evaluations, GradientRequest, Gradients, RowSource


def configure_jax() -> None:
    """Settings of a process that computes leaves. Call before the first computation."""
    # Dtypes are always explicit; without this JAX would silently make float64 jobs float32.
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    # Otherwise one thread hands each leaf to another, for nothing on a worker with one XLA thread.
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call]


class RowBuffers:
    """Memory that the rows of one program call are gathered into: x, y and the weights w of a fixed number of rows.

    XLA may read a NumPy argument where it lies, also after the call has returned (whatever the dispatch flag says: seen at
    4 MB). So the results of a call must have been waited for before its rows are written over.
    """

    def __init__(self, rows: int, problem: Problem) -> None:
        self.x = np.zeros((rows, problem.network.features), problem.parameter_dtype)
        self.y = np.zeros(rows, problem.label_dtype)
        self.w = np.zeros(rows, problem.parameter_dtype)

    def mask(self, count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Zeroes all but the first `count` rows and gives them weight 0, so that no earlier call's rows leave a trace."""
        self.x[count:] = 0
        self.y[count:] = 0
        self.w[:count] = 1
        self.w[count:] = 0
        return self.x, self.y, self.w


class LeafComputer:
    """Computes requests with one compiled program of each kind. Holds no state that changes an answer."""

    def __init__(self, problem: Problem, rows: RowSource) -> None:
        self._problem = problem
        self._rows = rows
        self._leaf = leaf_program(problem)
        self._evaluate = evaluation_program(problem)
        self._leaf_rows = RowBuffers(problem.sampling.leaf_rows, problem)
        self._evaluation_rows = RowBuffers(EVALUATION_ROWS, problem)
        self._buffers: list[Flat] = []

    def warm_up(self) -> None:
        """Compiles the leaf program before the first step."""
        _finished(self._leaf(self._parameters(self._problem.layout.zeros()), *self._leaf_rows.mask(0)))

    def compiled_programs(self) -> int:
        """How many programs were compiled; at most one of each kind, ever."""
        return sum(cast(Any, program)._cache_size() for program in (self._leaf, self._evaluate))

    def gradients(self, request: GradientRequest, theta: Flat, into: Callable[[Node], Flat] | None = None) -> Gradients:
        """The gradient sums of the tree nodes that cover the requested leaves.

        Args:
            request: which leaves, of which step.
            theta: θ, flat.
            into: the buffer for a covering node's sum, its padding zero; by default buffers of this computer, valid until its
                next call.
        """
        layout = self._problem.layout
        parameters = self._parameters(theta)
        losses = np.zeros(request.stop - request.start)
        tree = GradientSums()
        free = list(self._buffers)
        nodes = cover(request.start, request.stop, self._problem.sampling.shards)
        # A node's sum grows in the buffer of its first leaf.
        tops = {node[0]: into(node) for node in nodes} if into else {}

        def leaf(node: Node) -> Flat | None:
            shard, stop = node
            if stop - shard > 1:
                return None
            rows = self._gather_leaf(shard, request.step)
            loss, gradient = _finished(self._leaf(parameters, *rows))
            losses[shard - request.start] = loss
            buffer = tops.get(shard)
            if buffer is None:
                buffer = free.pop() if free else self._new_buffer()
            return tree.leaf(node, layout.fill(buffer, gradient))

        def add(node: Node, left: Flat, right: Flat) -> Flat:
            free.append(right)
            return tree.add(node, left, right)

        sums = {node: reduce_node(node, leaf, add) for node in nodes}
        return Gradients(request, sums, tree.norms, losses)

    def evaluations(self, request: EvaluationRequest, theta: Flat) -> Evaluations:
        """Loss sums and hits of the requested chunks."""
        parameters = self._parameters(theta)
        wanted = chunks(self._problem, request.split)[request.start : request.stop]
        results = np.zeros((2, len(wanted)))
        for i, (array, start, stop) in enumerate(wanted):
            x, y = self._rows.shard(array) if request.split == "train" else self._rows.validation()
            self._evaluation_rows.x[: stop - start] = x[start:stop]
            self._evaluation_rows.y[: stop - start] = y[start:stop]
            results[:, i] = _finished(self._evaluate(parameters, *self._evaluation_rows.mask(stop - start)))
        return Evaluations(request, *results)

    def _gather_leaf(self, shard: int, step: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        shards, rows = self._problem.sampling.leaf(shard, step)
        for source in np.unique(shards):
            x, y = self._rows.shard(int(source))
            into = np.flatnonzero(shards == source)
            self._leaf_rows.x[into] = x[rows[into]]
            self._leaf_rows.y[into] = y[rows[into]]
        return self._leaf_rows.mask(len(rows))

    def _parameters(self, theta: Flat) -> dict[str, jax.Array]:
        """θ's arrays, made jax's own once a request instead of once a leaf."""
        return {name: jnp.asarray(view) for name, view in self._problem.layout.views(theta).items()}

    def _new_buffer(self) -> Flat:
        self._buffers.append(self._problem.layout.zeros())
        return self._buffers[-1]


def _finished(results: tuple[Any, ...]) -> tuple[Any, ...]:
    """The results of a program once they are there: from then on its arguments may be written over."""
    ready: tuple[Any, ...] = jax.block_until_ready(results)  # type: ignore[no-untyped-call]
    return ready
