"""The leaf program: the one program of a job that computes gradients, compiled once."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from shardsgd.model.losses import ROW_LOSSES
from shardsgd.model.networks import Parameters
from shardsgd.model.problem import Problem

LeafProgram = Callable[[Parameters, ArrayLike, ArrayLike, ArrayLike], tuple[jax.Array, dict[str, jax.Array]]]


def leaf_program(problem: Problem) -> LeafProgram:
    """Σ wᵢℓᵢ(θ) and its gradient by reverse-mode AD.

    Called as `program(parameters, x [b, features], y [b], w [b])` with weights 0 or 1, always of the same shapes: neither
    batched by `vmap` nor given two leaves at once, either of which changes bits (DESIGN §2). Sums, not means: they add up over
    leaves, and the mean is taken once, at the root.
    """

    def loss_sum(parameters: Parameters, x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(w * ROW_LOSSES[problem.loss](network_outputs(problem, parameters, x), y))

    return jax.jit(jax.value_and_grad(loss_sum))


def network_outputs(problem: Problem, parameters: Parameters, x: jax.Array) -> jax.Array:
    """Outputs [rows, outputs] in the parameters' dtype; the casts' transposes bring the gradients back to it too."""
    compute = problem.compute_dtype
    cast = {name: value.astype(compute) for name, value in parameters.items()}
    return problem.network.apply(cast, x.astype(compute)).astype(problem.parameter_dtype)
