"""Losses of single rows. Each maps network outputs [B, K] and labels [B] to losses [B], stable for large outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from shardsgd.model.problem import LossName

RowLoss = Callable[[jax.Array, jax.Array], jax.Array]


def squared_error(z_BxK: jax.Array, y_B: jax.Array) -> jax.Array:
    """(z − y)², for one output and real labels."""
    return jnp.square(z_BxK[:, 0] - y_B)


def logistic(z_BxK: jax.Array, y_B: jax.Array) -> jax.Array:
    """−y ln s − (1−y) ln(1−s) with s = sigmoid(z), for one output and labels 0 and 1.

    Written ln(1 + e^∓z), which keeps all digits of a small loss for either label; ln(1 + eᶻ) − yz cancels for label 1.
    """
    z_B = z_BxK[:, 0]
    return jax.nn.softplus(jnp.where(y_B == 1, -z_B, z_B))


def softmax_cross_entropy(z_BxK: jax.Array, y_B: jax.Array) -> jax.Array:
    """−ln softmax(z)_y, for K outputs and class numbers 0 … K−1. Shifted by the largest z first, so that nothing cancels."""
    return -jnp.take_along_axis(jax.nn.log_softmax(z_BxK, axis=1), y_B[:, None], axis=1)[:, 0]


def _sign_is_right(z_BxK: jax.Array, y_B: jax.Array) -> jax.Array:
    return (z_BxK[:, 0] > 0) == (y_B == 1)


def _largest_is_right(z_BxK: jax.Array, y_B: jax.Array) -> jax.Array:
    return jnp.argmax(z_BxK, axis=1) == y_B


ROW_LOSSES: Mapping[LossName, RowLoss] = {
    "squared_error": squared_error,
    "logistic": logistic,
    "softmax_cross_entropy": softmax_cross_entropy,
}

# Whether a row is classified right; regression has no such thing.
ROW_HITS: Mapping[LossName, RowLoss] = {"logistic": _sign_is_right, "softmax_cross_entropy": _largest_is_right}
