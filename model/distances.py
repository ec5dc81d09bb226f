"""The programs that measure the variance of a gradient: distances of rows' gradients, and gradients of sampled batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from shardsgd.model.leaf import LeafProgram, leaf_program, network_outputs
from shardsgd.model.losses import ROW_LOSSES
from shardsgd.model.networks import Parameters
from shardsgd.model.problem import Problem

RowDistancesProgram = Callable[[Parameters, Parameters, ArrayLike, ArrayLike, ArrayLike], jax.Array]

# Of the gradients of single rows that exist at a time.
_ROW_GRADIENT_BYTES = 32 * 2**20
_MOST_ROWS = 256
# Rows of one call of the batch program: few for small batches, which would otherwise pay for rows they do not have.
SMALL_CHUNK, LARGE_CHUNK = 16, 256
_LARGEST_SMALL = 64


class DistancePrograms(NamedTuple):
    """Compiled when they are called for the first time, once for each number of rows.

    Attributes:
        rows: Σ wᵢ‖∇ℓᵢ(θ) − g‖².
        batch: Σ wᵢℓᵢ(θ) and its gradient.
    """

    rows: RowDistancesProgram
    batch: LeafProgram


def distance_programs(problem: Problem) -> DistancePrograms:
    """Both programs of a problem."""
    return DistancePrograms(row_distances_program(problem), leaf_program(problem))


def row_distances_program(problem: Problem) -> RowDistancesProgram:
    """Σ wᵢ‖∇ℓᵢ(θ) − g‖² over some rows, for each parameter array: [arrays] float64, in the layout's order.

    Called as `program(parameters, g, x [rows, features], y [rows], w [rows])`, always with as many rows. `vmap` is fine here:
    one program of one shape, whoever calls it; what changes bits is the same row in programs of different shapes.
    """

    def row_loss(parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
        return ROW_LOSSES[problem.loss](network_outputs(problem, parameters, x[None]), y[None])[0]

    gradients_of_rows = jax.vmap(jax.grad(row_loss), in_axes=(None, 0, 0))

    def distances(parameters: Parameters, g: Parameters, x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
        gradients = gradients_of_rows(parameters, x, y)

        def total(name: str) -> jax.Array:
            difference = gradients[name].astype(jnp.float64) - g[name].astype(jnp.float64)
            squares = jnp.sum(jnp.square(difference), axis=tuple(range(1, difference.ndim)))
            return jnp.sum(w.astype(jnp.float64) * squares)

        return jnp.stack([total(entry.name) for entry in problem.layout.entries])

    return jax.jit(distances)


def row_chunk(problem: Problem) -> int:
    """Rows of one call of the row program: a power of two, few enough that their gradients fit into some tens of megabytes."""
    fitting = max(1, _ROW_GRADIENT_BYTES // problem.layout.nbytes)
    return min(_MOST_ROWS, 1 << (fitting.bit_length() - 1))


def batch_chunk(batch: int) -> int:
    """Rows of one call of the batch program for batches of so many rows."""
    return SMALL_CHUNK if batch <= _LARGEST_SMALL else LARGE_CHUNK
