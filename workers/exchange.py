"""The exchange port: how parameters reach workers and gradient sums come back, whatever the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shardsgd.model.layout import Flat
from shardsgd.model.problem import Split
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


Request = GradientRequest | EvaluationRequest


@dataclass(frozen=True)
class Gradients:
    """Answer to a `GradientRequest`.

    Attributes:
        request: what was asked.
        sums: gradient sums of the fewest tree nodes that hold the leaves asked for.
        norms: ‖sum‖² of those nodes and of every node below them.
        losses: [stop − start] float64, loss sum of each leaf.
    """

    request: GradientRequest
    sums: Mapping[Node, Flat]
    norms: Mapping[Node, float]
    losses: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluations:
    """Answer to an `EvaluationRequest`.

    Attributes:
        request: what was asked.
        losses: [stop − start] float64, loss sum of each chunk.
        hits: [stop − start] float64, rows of each chunk classified right.
    """

    request: EvaluationRequest
    losses: NDArray[np.float64]
    hits: NDArray[np.float64]


Reply = Gradients | Evaluations


@dataclass(frozen=True)
class WorkerLost:
    """A worker is gone; what it had not answered will not be answered."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True)
class RequestFailed:
    """A worker's computation raised. The worker itself lives."""

    worker: WorkerId
    request: Request
    traceback: str


Event = Reply | WorkerLost | RequestFailed


class Exchange(Protocol):
    """One transport's coordinator side. Implementations differ in speed, never in bits."""

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""

    def publish(self, theta: Flat) -> None:
        """Makes θ what requests sent from now on are computed with. `theta` is not changed by anybody afterwards."""

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
