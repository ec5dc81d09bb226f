"""The exchange port: how parameters reach workers and gradient sums come back, whatever the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.layout import Flat
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.problem import Split
from shardsgd.model.state import BlockUpdates
from shardsgd.model.tree import Node

WorkerId = int


@dataclass(frozen=True)
class GradientRequest:
    """Compute the leaves start … stop − 1 of a step.

    Attributes:
        step: t.
        plan_version: of the plan that asked; every plan of a job has its own, so an answer to an old one is told apart.
        start: first leaf.
        stop: one past the last leaf.
    """

    step: int
    plan_version: int
    start: int
    stop: int


@dataclass(frozen=True)
class EvaluationRequest:
    """Evaluate the chunks start … stop − 1 of a split at the published parameters. Attributes as in `GradientRequest`."""

    step: int
    plan_version: int
    start: int
    stop: int
    split: Split


@dataclass(frozen=True)
class UpdateRequest:
    """Update the blocks start … stop − 1 of the state after a step. Other attributes as in `GradientRequest`.

    Attributes:
        rows: the step's Σ of weights.
        rate: lr(t).
        holders: nodes that together cover all leaves, and whose memory their sums lie in.
    """

    step: int
    plan_version: int
    start: int
    stop: int
    rows: int
    rate: float
    holders: tuple[tuple[Node, WorkerId], ...]


@dataclass(frozen=True)
class RowDistancesRequest:
    """Compute how far rows' gradients are from g, which lies where the exchange's other state has its θ.

    Attributes:
        step: as in `GradientRequest`.
        plan_version: likewise.
        start: first unit; unit u is the rows of shard `first` + u.
        stop: one past the last unit.
        first: shard of unit 0.
    """

    step: int
    plan_version: int
    start: int
    stop: int
    first: int


@dataclass(frozen=True)
class BatchDistancesRequest:
    """Draw batches and compute how far their gradients are from g, which lies as for `RowDistancesRequest`.

    Attributes:
        step: as in `GradientRequest`.
        plan_version: likewise.
        start: first unit; unit u is the batch number `first` + u of those of this size.
        stop: one past the last unit.
        first: number of unit 0's batch.
        batch: B, the rows of each.
        replacement: whether they are drawn with replacement.
    """

    step: int
    plan_version: int
    start: int
    stop: int
    first: int
    batch: int
    replacement: bool


DistancesRequest = RowDistancesRequest | BatchDistancesRequest
Request = GradientRequest | EvaluationRequest | UpdateRequest | DistancesRequest


@dataclass(frozen=True)
class LeafSeconds:
    """Where a worker's time went in answering a `GradientRequest`, in seconds.

    Attributes:
        gather: gathering rows; those gathered before the request came are not counted.
        leaf: in the leaf program.
        reduce: adding gradients up along the tree, and their norms.
    """

    gather: float
    leaf: float
    reduce: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.gather + self.leaf + self.reduce


@dataclass(frozen=True)
class Gradients:
    """Answer to a `GradientRequest`.

    Attributes:
        request: what was asked.
        worker: who answers.
        sums: gradient sums of the fewest tree nodes that hold the leaves asked for.
        norms: ‖sum‖² of those nodes and of every node below them.
        losses: [stop − start] float64, loss sum of each leaf.
        seconds: where the time went.
    """

    request: GradientRequest
    worker: WorkerId
    sums: Mapping[Node, Flat]
    norms: Mapping[Node, float]
    losses: NDArray[np.float64]
    seconds: LeafSeconds


@dataclass(frozen=True)
class Evaluations:
    """Answer to an `EvaluationRequest`.

    Attributes:
        request: what was asked.
        worker: who answers.
        losses: [stop − start] float64, loss sum of each chunk.
        hits: [stop − start] float64, rows of each chunk classified right.
    """

    request: EvaluationRequest
    worker: WorkerId
    losses: NDArray[np.float64]
    hits: NDArray[np.float64]


@dataclass(frozen=True)
class Updates:
    """Answer to an `UpdateRequest`; the blocks themselves lie in the exchange's other state.

    Attributes:
        request: what was asked.
        worker: who answers.
        made: norms and figures of the blocks.
        seconds: the worker's time.
    """

    request: UpdateRequest
    worker: WorkerId
    made: BlockUpdates
    seconds: float


@dataclass(frozen=True)
class Distances:
    """Answer to a `DistancesRequest`.

    Attributes:
        request: what was asked.
        worker: who answers.
        squared: [stop − start, arrays] float64, for each parameter array in the layout's order: Σ ‖∇ℓᵢ(θ) − g‖² over the rows
            of each shard, or ‖g_B − g‖² of each batch's mean gradient g_B.
    """

    request: DistancesRequest
    worker: WorkerId
    squared: NDArray[np.float64]


Reply = Gradients | Evaluations | Updates | Distances


@dataclass(frozen=True)
class WorkerJoined:
    """A worker that was started can be sent requests."""

    worker: WorkerId


@dataclass(frozen=True)
class WorkerLeaving:
    """A worker has been given notice: it answers what it was asked, and should not be asked more."""

    worker: WorkerId


@dataclass(frozen=True)
class WorkerLost:
    """A worker is gone, or could not start; what it had not answered will not be answered."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True)
class RequestFailed:
    """A worker's computation raised. The worker itself lives."""

    worker: WorkerId
    request: Request
    traceback: str

    @property
    def error(self) -> str:
        """What was raised, in one line."""
        lines = self.traceback.strip().splitlines()
        return lines[-1] if lines else ""


Event = Reply | WorkerJoined | WorkerLeaving | WorkerLost | RequestFailed


class Exchange(Protocol):
    """One transport's coordinator side. Implementations differ in speed, never in bits.

    Attributes:
        states: memory for two versions of the training state, used in turn: the one that is published, and its successor.
        updates: whether workers can update too: they read each other's sums, and write the successor where it is wanted.
    """

    states: tuple[StateBuffers, StateBuffers]
    updates: bool

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""

    def start(self, worker: WorkerId) -> None:
        """Starts a worker that there is not, and returns at once; that it joined or was lost will be received."""

    def kill(self, worker: WorkerId) -> None:
        """Ends a worker's process for certain, even one that hangs; its loss will be received."""

    def dismiss(self, worker: WorkerId) -> None:
        """Lets a worker go that has answered all it was asked; nothing will be received of it any more."""

    def publish(self, number: int) -> None:
        """Makes θ of state 0 or 1 what requests sent from now on are computed with. It does not change before the next call."""

    def send(self, worker: WorkerId, request: Request) -> None:
        """Asks a worker. Its answer, or its loss, will be received."""

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """What arrived since the last call, waiting for at least one event; empty after `timeout_s` seconds."""

    def close(self) -> None:
        """Stops the workers and frees everything; may be called twice."""


class RowSource(Protocol):
    """A worker's access to the rows; arrays are read-only."""

    def shard(self, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """(x [n_s, features], y [n_s]) of a logical shard."""

    def validation(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(x, y) of the held-out rows."""
