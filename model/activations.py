"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from shardsgd.model.networks import Activation

# leaky_relu: slope 0.01 (Maas et al. 2013). gelu: x·Φ(x) with the exact Φ (Hendrycks & Gimpel 2016), not its tanh form.
ACTIVATIONS: Mapping[Activation, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, negative_slope=0.01),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}
