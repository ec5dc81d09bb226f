"""The update program: gradient sum in, new parameters out, one compiled pass a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shardsgd.model.layout import Layout


class Updated(NamedTuple):
    """What one update gives.

    Attributes:
        theta: θ_{t+1}, flat.
        optimizer_state: for the next step.
        gradient_squared_norm: ‖g‖² of the full gradient, regularizer included.
        finite: whether every element of θ_{t+1} is finite.
    """

    theta: jax.Array
    optimizer_state: Any
    gradient_squared_norm: jax.Array
    finite: jax.Array


UpdateProgram = Callable[[Any, Any, Any, float, float], Updated]


def update_program(
    layout: Layout, optimizer: optax.GradientTransformationExtraArgs, *, l1: float, l2: float
) -> UpdateProgram:
    """G = (root sum)/(weight sum) + ∇r(θ), then the optimizer.

    Called as `program(theta, optimizer_state, gradient_sum, weight_sum, learning_rate)`; the buffers are flat, in the layout's
    dtype. r(θ) = l1·‖w‖₁ + l2·‖w‖²/2 over weights, not biases; the subgradient of |w| at 0 is taken as 0.
    """

    def update(theta: Any, state: Any, gradient_sum: Any, weight_sum: Any, learning_rate: Any) -> Updated:
        rate = jnp.asarray(learning_rate, layout.dtype)
        gradient = gradient_sum / jnp.asarray(weight_sum, layout.dtype)
        if l1 or l2:
            gradient = gradient + _regularizer_gradient(layout, theta, l1, l2)
        updates, state = optimizer.update(gradient, state, theta, learning_rate=rate)
        new = optax.apply_updates(theta, updates)
        return Updated(new, state, jnp.vdot(gradient, gradient), jnp.all(jnp.isfinite(new)))

    return jax.jit(update)


def regularizer_program(layout: Layout, *, l1: float, l2: float) -> Callable[[Any], jax.Array]:
    """r(θ) of a flat buffer."""

    def value(theta: Any) -> jax.Array:
        weights = [theta[entry.span] for entry in layout.entries if entry.is_weight]
        return sum(
            (l1 * jnp.sum(jnp.abs(w)) + l2 / 2 * jnp.vdot(w, w) for w in weights), start=jnp.zeros((), layout.dtype)
        )

    return jax.jit(value)


def _regularizer_gradient(layout: Layout, theta: Any, l1: float, l2: float) -> jax.Array:
    """∇r(θ), flat; 0 for biases and padding."""
    parts, end = [], 0
    for entry in layout.entries:
        parts.append(jnp.zeros(entry.offset - end, layout.dtype))
        w = theta[entry.span]
        parts.append(l1 * jnp.sign(w) + l2 * w if entry.is_weight else jnp.zeros_like(w))
        end = entry.span.stop
    parts.append(jnp.zeros(layout.length - end, layout.dtype))
    return jnp.concatenate(parts)
