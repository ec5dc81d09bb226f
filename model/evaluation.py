"""Evaluation of rows at given parameters: the program, and how rows are cut into its fixed-size chunks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from shardsgd.model.leaf import network_outputs
from shardsgd.model.losses import ROW_HITS, ROW_LOSSES
from shardsgd.model.networks import Parameters
from shardsgd.model.problem import Problem, Split

Chunk = tuple[int, int, int]
EvaluationProgram = Callable[[Parameters, ArrayLike, ArrayLike, ArrayLike], tuple[jax.Array, jax.Array]]

# Rows of one call. Fixed, because XLA may give other bits for other shapes of the same sum.
EVALUATION_ROWS = 256


def evaluation_program(problem: Problem) -> EvaluationProgram:
    """Σ wᵢℓᵢ(θ) and the weighted number of rows classified right (0 for regression) of `EVALUATION_ROWS` rows."""
    hits = ROW_HITS.get(problem.loss)

    def evaluate(parameters: Parameters, x: jax.Array, y: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = network_outputs(problem, parameters, x)
        right = jnp.zeros((), w.dtype) if hits is None else jnp.sum(w * hits(z, y))
        return jnp.sum(w * ROW_LOSSES[problem.loss](z, y)), right

    return jax.jit(evaluate)


def chunks(problem: Problem, split: Split) -> list[Chunk]:
    """(array, start, stop) of every chunk of a split."""
    return [
        (array, start, min(start + EVALUATION_ROWS, rows))
        for array, rows in enumerate(problem.split_rows(split))
        for start in range(0, rows, EVALUATION_ROWS)
    ]
