"""Plain `jax.jit` in one process with all cores, no distribution at all: parameters `source` and `batch`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.orders import Orders
from benchmarks.work import CLASSES, FEATURES, HIDDEN, LEARNING_RATE, MOMENTUM, ROWS, read_rows

Layers = list[tuple[jax.Array, jax.Array]]


def initial() -> Layers:
    """He-scaled weights and zero biases."""
    random = np.random.default_rng(0)
    sizes = (FEATURES, *HIDDEN, CLASSES)
    return [
        (
            jnp.asarray(random.normal(scale=(2 / inputs) ** 0.5, size=(inputs, outputs)), jnp.float32),
            jnp.zeros(outputs, jnp.float32),
        )
        for inputs, outputs in pairwise(sizes)
    ]


def mean_loss(layers: Layers, x: jax.Array, y: jax.Array) -> jax.Array:
    """Softmax cross-entropy."""
    *hidden, (weights, bias) = layers
    for matrix, offset in hidden:
        x = jax.nn.relu(x @ matrix + offset)
    scores = jax.nn.log_softmax(x @ weights + bias)
    return -jnp.mean(jnp.take_along_axis(scores, y[:, None], axis=1))


# Tried: rows gathered by NumPy and given as they are or by device_put; rows drawn by jax.random; XLA's synchronous dispatch. At
# B = 64 all are equal within the noise; at 256 and 1024 the gather inside the program takes some 8 % less than NumPy's.
@partial(jax.jit, donate_argnums=(0, 1))
def step(
    layers: Layers, memory: Layers, x: jax.Array, y: jax.Array, picked: jax.Array
) -> tuple[Layers, Layers, jax.Array]:
    """One update; θ and the momentum are written over in place."""
    loss, gradient = jax.value_and_grad(mean_loss)(layers, x[picked], y[picked])
    memory = jax.tree.map(lambda old, new: MOMENTUM * old + new, memory, gradient)
    return jax.tree.map(lambda old, change: old - LEARNING_RATE * change, layers, memory), memory, loss


def prepare(parameters: dict[str, Any]) -> Callable[[int], None]:
    """Steps; the program is compiled in the first."""
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(array) for array in read_rows(parameters["source"]))
    layers = initial()
    memory = jax.tree.map(jnp.zeros_like, layers)

    def steps(count: int) -> None:
        nonlocal layers, memory
        for _ in range(count):
            picked = random.integers(ROWS, size=parameters["batch"], dtype=np.int32)
            layers, memory, _ = step(layers, memory, x, y, picked)
        jax.block_until_ready((layers, memory))  # type: ignore[no-untyped-call]

    return steps


if __name__ == "__main__":
    orders = Orders.from_arguments()
    orders.obey(prepare(orders.parameters))
