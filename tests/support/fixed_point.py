"""Real rows and a network at one θ: its gradients row by row, and what a job's steps would make of them."""

import jax
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from trees import add_up

from shardsgd.model.leaf import leaf_program
from shardsgd.model.losses import ROW_LOSSES
from shardsgd.model.networks import Network
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling, Stream, permutation
from shardsgd.model.statistics import step_noise
from shardsgd.model.sums import LeafGradient


class FixedPoint:
    """Rows and a network at θ that has learnt a little, so that |G|² is neither all nor nothing.

    Attributes:
        rows: n.
        problem: in float64, shuffled.
        theta: flat.
        gradient: ∇L over all rows.
        gradient_squared: ‖∇L‖².
        trace: tr Σ of the rows, with divisor n.
    """

    def __init__(self, x, y, network, loss, *, batch, shards):
        self.x, self.y, self.rows = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9), y.astype(np.int32), len(y)
        sampling = Sampling(0, self.rows, batch, shards, "shuffle")
        self.problem = Problem(network, loss, sampling, "float64", 0)
        self.layout, self.program = self.problem.layout, leaf_program(self.problem)
        self.theta = network.initialize(1, self.layout)
        for _ in range(3):
            self.theta = self.theta - 0.5 * self.row_gradients().mean(axis=0)
        gradients = self.row_gradients()
        self.gradient = gradients.mean(axis=0)
        self.gradient_squared = float(self.gradient @ self.gradient)
        self.trace = float(np.sum((gradients - self.gradient) ** 2)) / self.rows

    def row_gradients(self):
        """The flat gradient of every row's loss: per-example gradients by vmap, without leaf program or masks."""

        def row_loss(parameters, x, y):
            return ROW_LOSSES[self.problem.loss](self.problem.network.apply(parameters, x[None]), y[None])[0]

        views = self.layout.views(self.theta)
        parts = jax.jit(jax.vmap(jax.grad(row_loss), in_axes=(None, 0, 0)))(views, self.x, self.y)
        flat = np.zeros((self.rows, self.layout.length))
        for entry in self.layout.entries:
            flat[:, entry.span] = np.asarray(parts[entry.name]).reshape(self.rows, -1)
        return flat

    def step(self, sampling, step):
        """(g_B, the noise estimates) of one step, the rows dealt by the sampling's seed as a job would."""
        dealt = permutation(sampling.seed, Stream.DEAL, 0, 0, self.rows)
        views = self.layout.views(self.theta)

        def leaf(shard):
            shards, rows = sampling.leaf(shard, step)
            chosen = dealt[rows * sampling.shards + shards]
            x, y = np.zeros((sampling.leaf_rows, self.x.shape[1])), np.zeros(sampling.leaf_rows, np.int32)
            w = np.zeros(sampling.leaf_rows)
            x[: len(chosen)], y[: len(chosen)], w[: len(chosen)] = self.x[chosen], self.y[chosen], 1
            _, gradient = self.program(views, x, y, w)
            return LeafGradient(tuple(np.asarray(gradient[entry.name]).ravel() for entry in self.layout.entries))

        total, norms = add_up(self.layout, leaf, (0, sampling.shards))
        return total / sampling.step_rows(step), step_noise(norms, sampling.leaf_counts(step))


def breast_cancer(*, batch, shards):
    """569 rows of 30 features, two classes, a hidden layer of 4."""
    return FixedPoint(
        *load_breast_cancer(return_X_y=True), Network(30, (4,), 1, "tanh"), "logistic", batch=batch, shards=shards
    )


def digits(*, batch, shards):
    """1,797 rows of 64 features, ten classes, a hidden layer of 32."""
    network = Network(64, (32,), 10, "relu")
    return FixedPoint(*load_digits(return_X_y=True), network, "softmax_cross_entropy", batch=batch, shards=shards)
