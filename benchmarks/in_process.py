"""The exchange port with one worker in this process: the same leaves, sums and updates as a run's, without Ray or sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from shardsgd.coordinator.data import Dataset
from shardsgd.model.problem import Problem
from shardsgd.model.state import Updater
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import EvaluationRequest, Event, GradientRequest, Request


class DatasetRows:
    """Rows of a dataset, as a worker sees them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def shard(self, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """(x, y) of a logical shard."""
        return self._dataset.shards[number]

    def validation(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(x, y) of the held-out rows."""
        assert self._dataset.validation is not None
        return self._dataset.validation


class OneWorkerExchange:
    """See `shardsgd.workers.exchange.Exchange`. Its worker never fails and cannot be replaced."""

    updates = False
    workers = (0,)

    def __init__(self, problem: Problem, computer: LeafComputer) -> None:
        """Of one job.

        Args:
            problem: its mathematics.
            computer: of its leaves.
        """
        updater = Updater(problem)
        self.states = (updater.buffers(), updater.buffers())
        self._computer = computer
        self._parameters = [computer.shared_parameters(state.theta) for state in self.states]
        self._published = 0
        self._asked: list[Request] = []

    def publish(self, number: int) -> None:
        """As the port says."""
        self._published = number

    def send(self, worker: int, request: Request) -> None:
        """As the port says."""
        del worker
        self._asked.append(request)

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """As the port says, and at once."""
        del timeout_s
        asked, self._asked = self._asked, []
        return [self._answer(request) for request in asked]

    def _answer(self, request: Request) -> Event:
        parameters = self._parameters[self._published]
        if isinstance(request, EvaluationRequest):
            return self._computer.evaluations(request, parameters)
        assert isinstance(request, GradientRequest)
        return self._computer.gradients(request, parameters)

    def start(self, worker: int) -> None:
        """Nothing comes of it."""

    def kill(self, worker: int) -> None:
        """Nothing comes of it."""

    def dismiss(self, worker: int) -> None:
        """Nothing comes of it."""

    def close(self) -> None:
        """Nothing to free."""
