"""Networks: a linear model and the multi-layer perceptron, of which it is the case without hidden layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from shardsgd.model.layout import Flat, Layout
from shardsgd.model.sampling import Stream, fill_uniform

if TYPE_CHECKING:
    import jax

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu"]
Parameters = Mapping[str, "jax.Array"]


@dataclass(frozen=True)
class Network:
    """A fully connected network. Layer l computes a·weight + bias, weight [in, out], bias [out].

    Attributes:
        features: inputs.
        hidden: units of each hidden layer; empty for a linear model.
        outputs: outputs of the last layer, which has no activation.
        activation: nonlinearity after each hidden layer.
    """

    features: int
    hidden: tuple[int, ...]
    outputs: int
    activation: Activation

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of every layer, the inputs first."""
        return (self.features, *self.hidden, self.outputs)

    def layout(self, dtype: np.dtype[np.floating]) -> Layout:
        """Where each parameter lies in the flat buffer: `layer0.weight`, `layer0.bias`, `layer1.weight`, …"""
        shapes: list[tuple[str, tuple[int, ...]]] = []
        for layer, (inputs, units) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            shapes += [(f"layer{layer}.weight", (inputs, units)), (f"layer{layer}.bias", (units,))]
        return Layout.pack(shapes, dtype)

    def apply(self, parameters: Parameters, x_BxD: jax.Array) -> jax.Array:
        """The outputs [B, outputs] for inputs [B, features], in the dtype of `x_BxD`."""
        # Imported here: the coordinator needs networks, and half a second to import jax.
        from shardsgd.model.activations import ACTIVATIONS  # noqa: PLC0415

        activate = ACTIVATIONS[self.activation]
        a = x_BxD
        for layer in range(len(self.hidden) + 1):
            if layer:
                a = activate(a)
            a = a @ parameters[f"layer{layer}.weight"] + parameters[f"layer{layer}.bias"]
        return a

    def initialize(self, seed: int, layout: Layout) -> Flat:
        """Weights uniform in ±limit, biases 0; the same for every dtype up to rounding.

        Layers followed by a member of the ReLU family get He's limit √(6/in) (He et al. 2015), all others Glorot's
        √(6/(in + out)) (Glorot & Bengio 2010).
        """
        flat = layout.zeros()
        rectified = self.activation in ("relu", "leaky_relu", "gelu")
        for lane, entry in enumerate(layout.entries):
            if entry.is_weight:
                inputs, units = entry.shape
                is_last = lane == len(layout.entries) - 2
                limit = math.sqrt(6 / inputs) if rectified and not is_last else math.sqrt(6 / (inputs + units))
                fill_uniform(flat[entry.span], limit, seed, Stream.INITIALIZE, lane, 0)
        return flat
