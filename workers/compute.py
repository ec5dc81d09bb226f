"""What a worker computes: leaves, evaluation chunks and blocks of the update, as pure functions of what they are given."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

import jax
import numpy as np

from shardsgd.model.aliases import alias, finished
from shardsgd.model.chunks import EVALUATION_ROWS, chunks
from shardsgd.model.layout import Flat
from shardsgd.model.networks import Parameters
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.problem import Problem
from shardsgd.model.state import Updater
from shardsgd.model.sums import Adder, LeafGradient, Summand
from shardsgd.model.tree import Node, cover, reduce_node
from shardsgd.workers.distances import DistanceComputer
from shardsgd.workers.exchange import (
    Distances,
    DistancesRequest,
    EvaluationRequest,
    Evaluations,
    GradientRequest,
    Gradients,
    LeafSeconds,
    RowSource,
    UpdateRequest,
    Updates,
    WorkerId,
)
from shardsgd.workers.programs import Programs
from shardsgd.workers.rows import RowBuffers, RowGatherer
from shardsgd.workers.summing import Summation

# mallopt(3), and its defaults
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_USUAL_TRIM_THRESHOLD, _USUAL_MMAP_MAX = 128 * 1024, 65536


def configure_jax() -> None:
    """Settings of a process that computes leaves. Call before the first computation."""
    # Dtypes are always explicit; without this JAX would silently make float64 jobs float32.
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    # Otherwise one thread hands each leaf to another, for nothing on a worker with one XLA thread.
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call]


def keep_freed_memory() -> None:
    """Has this process keep what XLA frees after each call, for the next one; where malloc is not glibc's, nothing.

    Given back to the kernel and asked for again, it would come zeroed and page by page: a quarter of a leaf's time at 512 rows
    of an MLP of 784-256-128-10.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Undoes `keep_freed_memory`, and gives back what was kept."""
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, _USUAL_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None


class LeafComputer:
    """Computes requests with one compiled program of each kind. Holds no state that changes an answer."""

    def __init__(
        self, problem: Problem, rows: RowSource, worker: WorkerId = 0, programs: Programs | None = None
    ) -> None:
        """Of one job.

        Args:
            problem: its mathematics.
            rows: its data.
            worker: number that answers bear.
            programs: of earlier jobs of this process; none if None.
        """
        self._problem = problem
        self._source = rows
        self._worker = worker
        self._leaf, self._evaluate, self._distance_programs = (programs or Programs()).of(problem)
        self._updater = Updater(problem)
        self._rows = RowGatherer(problem, rows)
        self._evaluation_rows = RowBuffers(EVALUATION_ROWS, problem)
        self._adder = Adder(problem.layout)
        self._names = [entry.name for entry in problem.layout.entries]
        self._buffers: list[Flat] = []

    def warm_up(self) -> None:
        """Compiles the leaf program before the first step."""
        rows = RowBuffers(self._problem.sampling.leaf_rows, self._problem)
        finished(self._leaf(self.shared_parameters(self._problem.layout.zeros()), *rows.arguments))

    def compiled_programs(self) -> int:
        """How many programs were compiled; at most one of each kind, ever."""
        return sum(cast(Any, program)._cache_size() for program in (self._leaf, self._evaluate))

    def shared_parameters(self, theta: Flat) -> Parameters:
        """θ's arrays over the memory of a flat buffer, whatever it will hold; made once for a buffer."""
        return {name: alias(view) for name, view in self._problem.layout.views(theta).items()}

    def own_parameters(self, theta: Flat) -> Parameters:
        """θ's arrays, copied from a flat buffer, which may be read-only; they stay until the next call."""
        # By way of aliases, as all arguments: jax compiles another program for arrays that came another way.
        memory, parameters = self._own_theta
        np.copyto(memory, theta)
        return parameters

    def gradients(
        self, request: GradientRequest, parameters: Parameters, into: Callable[[Node], Flat] | None = None
    ) -> Gradients:
        """The gradient sums of the tree nodes that cover the requested leaves.

        Args:
            request: which leaves, of which step.
            parameters: θ's arrays.
            into: the buffer for a covering node's sum, its padding zero; by default this computer's own, valid until its next
                call.
        """
        losses = np.zeros(request.stop - request.start)
        nodes = cover(request.start, request.stop, self._problem.sampling.shards)
        summation = Summation(self._adder, self._buffers, self._problem.layout, nodes, into)
        seconds = _Seconds()

        def leaf(node: Node) -> Summand | None:
            shard, stop = node
            if stop - shard > 1:
                return None
            try:
                rows = self._rows.leaf(shard, request.step)
                seconds.spent("gather")
                loss, gradient = finished(self._leaf(parameters, *rows.arguments))
            except Exception as error:
                raise _LeafFailedError(
                    f"in leaf {shard} of step {request.step}: {type(error).__name__}: {error}"
                ) from error
            seconds.spent("leaf")
            # float(loss) takes eight times as long.
            losses[shard - request.start] = np.asarray(loss)
            arrays = tuple([np.asarray(gradient[name]).reshape(-1) for name in self._names])
            seconds.spent("reduce")
            return LeafGradient(arrays)

        def add(node: Node, left: Summand, right: Summand) -> Summand:
            total = summation.add(node, left, right)
            seconds.spent("reduce")
            return total

        sums = {node: summation.top(node, reduce_node(node, leaf, add)) for node in nodes}
        seconds.spent("reduce")
        return Gradients(request, self._worker, sums, summation.norms, losses, seconds.so_far())

    def gather_ahead(self, shard: int, step: int) -> bool:
        """Gathers the rows of a leaf that will probably be asked for; False once there is no room for more."""
        return self._rows.gather_ahead(shard, step)

    def evaluations(self, request: EvaluationRequest, parameters: Parameters) -> Evaluations:
        """Loss sums and hits of the requested chunks."""
        wanted = chunks(self._problem, request.split)[request.start : request.stop]
        results = np.zeros((2, len(wanted)))
        buffers = self._evaluation_rows
        for i, (array, start, stop) in enumerate(wanted):
            x, y = self._source.shard(array) if request.split == "train" else self._source.validation()
            buffers.x[: stop - start] = x[start:stop]
            buffers.y[: stop - start] = y[start:stop]
            buffers.mask(stop - start)
            results[:, i] = finished(self._evaluate(parameters, *buffers.arguments))
        return Evaluations(request, self._worker, *results)

    def updates(
        self, request: UpdateRequest, sums: Mapping[Node, Flat], before: StateBuffers, after: StateBuffers
    ) -> Updates:
        """Updates the requested blocks, from `before` to `after`, with gradient sums of nodes that cover all leaves."""
        started = time.perf_counter()
        blocks = range(request.start, request.stop)
        made = self._updater.update(blocks, sums, request.rows, request.rate, before, after)
        return Updates(request, self._worker, made, time.perf_counter() - started)

    def distances(self, request: DistancesRequest, parameters: Parameters, gradient: Flat) -> Distances:
        """Squared distances from the gradient g."""
        return Distances(request, self._worker, self._distance_computer.squared(request, parameters, gradient))

    @cached_property
    def _distance_computer(self) -> DistanceComputer:
        return DistanceComputer(self._problem, self._source, self._distance_programs)

    @cached_property
    def _own_theta(self) -> tuple[Flat, Parameters]:
        memory = self._problem.layout.zeros()
        return memory, self.shared_parameters(memory)


class _LeafFailedError(Exception):
    """Says which leaf it was; its cause says what."""


class _Seconds:
    """A stopwatch that shares its time out over what a leaf is made of."""

    def __init__(self) -> None:
        self._spent = {"gather": 0.0, "leaf": 0.0, "reduce": 0.0}
        self._since = time.perf_counter()

    def spent(self, on: str) -> None:
        now = time.perf_counter()
        self._spent[on] += now - self._since
        self._since = now

    def so_far(self) -> LeafSeconds:
        return LeafSeconds(**self._spent)
