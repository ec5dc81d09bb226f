"""The regularizer r(θ) = l1·‖w‖₁ + l2·‖w‖²/2 over weights w, not biases; the subgradient of |w| at 0 is taken as 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardsgd.model.layout import Flat
from shardsgd.model.sums import squared_norm


@dataclass(frozen=True)
class Regularizer:
    """Its two factors."""

    l1: float = 0.0
    l2: float = 0.0

    def __bool__(self) -> bool:
        """Whether r(θ) is anything but 0."""
        return bool(self.l1 or self.l2)

    def value(self, weights: Flat) -> float:
        """R of some weights, in float64."""
        value = self.l2 / 2 * squared_norm(weights) if self.l2 else 0.0
        return value + self.l1 * float(np.abs(weights).sum(dtype=np.float64)) if self.l1 else value

    def add_gradient(self, weights: Flat, gradient: Flat) -> None:
        """Adds ∇r of some weights to the gradient of the same."""
        number = weights.dtype.type
        if self.l1:
            gradient += number(self.l1) * np.sign(weights)
        if self.l2:
            gradient += number(self.l2) * weights
