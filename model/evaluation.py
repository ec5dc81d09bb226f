"""Evaluation of rows at given parameters: the program."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from shardsgd.model.leaf import network_outputs
from shardsgd.model.losses import ROW_HITS, ROW_LOSSES
from shardsgd.model.networks import Parameters
from shardsgd.model.problem import Problem

EvaluationProgram = Callable[[Parameters, ArrayLike, ArrayLike, ArrayLike], tuple[jax.Array, jax.Array]]


def evaluation_program(problem: Problem) -> EvaluationProgram:
    """Σ wᵢℓᵢ(θ) and the weighted number of rows classified right (0 for regression) of `EVALUATION_ROWS` rows."""
    hits = ROW_HITS.get(problem.loss)

    def evaluate(parameters: Parameters, x: jax.Array, y: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = network_outputs(problem, parameters, x)
        right = jnp.zeros((), w.dtype) if hits is None else jnp.sum(w * hits(z, y))
        return jnp.sum(w * ROW_LOSSES[problem.loss](z, y)), right

    return jax.jit(evaluate)
