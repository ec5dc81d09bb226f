"""Measurements of the variance in one process, and their closed forms."""

import numpy as np
from fakes import ArrayRows, InProcessExchange, toy_rounds

from shardsgd.coordinator.training import make_problem
from shardsgd.coordinator.variance.measurement import Measurement
from shardsgd.coordinator.variance.setting import dealt_anew, measured_problem
from shardsgd.workers.compute import LeafComputer


def told(rows):
    """Nobody follows."""


class Measured:
    """A spec's measurement over a fake exchange.

    Attributes:
        problem: as it is measured.
        dataset: dealt to its shards.
        exchange: the fake one.
        measurement: at θ.
    """

    def __init__(
        self, spec, dataset, *, theta=None, workers=2, faults=(), computer=None, problem=None, patience=None, **options
    ):
        self.problem = problem or measured_problem(make_problem(spec, dataset))
        self.dataset = dealt_anew(dataset, self.problem.sampling.shards)
        computer = computer or LeafComputer(self.problem, ArrayRows(self.dataset))
        self.exchange = InProcessExchange(
            self.problem, self.dataset, workers, faults, start_seconds=0.0, computer=computer, **options
        )
        if theta is None:
            theta = self.problem.network.initialize(spec.seed, self.problem.layout)
        self.theta = theta
        self.measurement = Measurement(self.problem, self.exchange, toy_rounds(self.exchange, patience=patience), theta)

    @property
    def gradient(self):
        """g, once it is computed."""
        return self.exchange.states[1].theta

    def rows(self):
        """(x, y) of all training rows as they were dealt."""
        shards = self.dataset.shards
        x = np.empty((self.dataset.rows, self.dataset.features), shards[0][0].dtype)
        y = np.empty(self.dataset.rows, shards[0][1].dtype)
        for number, (xs, ys) in enumerate(shards):
            x[number :: len(shards)], y[number :: len(shards)] = xs, ys
        return x, y


def linear_gradients(x, y, theta, problem):
    """[n, parameters] float64 gradients 2(xᵀw + b − y)(x, 1) of squared errors of a linear model, by hand."""
    views = problem.layout.views(np.asarray(theta, np.float64))
    residual = x @ views["layer0.weight"][:, 0] + views["layer0.bias"][0] - y
    return 2 * residual[:, None] * np.column_stack([x, np.ones(len(x))])
