"""Update rules: what a gradient does to parameters, element by element and in place.

NumPy, not XLA: a compiled update of the same block takes three times as long, because its results are new memory and must be
copied to where workers read them. And NumPy rounds every operation by itself, so the bits are those of the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from shardsgd.model.layout import Flat


class StateBuffers(NamedTuple):
    """Memory for one version of the training state, or for a block of it.

    Attributes:
        theta: flat.
        slots: what the optimizer remembers, each flat and in θ's layout.
    """

    theta: Flat
    slots: tuple[Flat, ...]

    def block(self, span: slice) -> StateBuffers:
        """A part of each."""
        return StateBuffers(self.theta[span], tuple(slot[span] for slot in self.slots))


class Optimizer(Protocol):
    """An update rule. It works element by element, so that blocks can be updated each by itself.

    Attributes:
        slots: how many arrays of θ's shape it remembers; they begin as zeros.
    """

    slots: int

    def update(self, total: Flat, scale: float, rate: float, before: StateBuffers, after: StateBuffers) -> None:
        """Writes the successors of θ and of the slots; may write over `total`, and over nothing else.

        Args:
            total: the gradient g, but for a factor.
            scale: that factor: g = scale · total.
            rate: η.
            before: θ and the slots.
            after: memory for their successors.
        """


@dataclass(frozen=True)
class Sgd:
    """θ ← θ − ηg."""

    slots = 0

    def update(self, total: Flat, scale: float, rate: float, before: StateBuffers, after: StateBuffers) -> None:
        """As the class says."""
        np.multiply(total, total.dtype.type(-rate * scale), out=total)
        np.add(before.theta, total, out=after.theta)


@dataclass(frozen=True)
class Momentum:
    """Δ ← βΔ − ηg, θ ← θ + Δ, with β = `decay`.

    The rate goes into Δ, as in the rule above. optax.sgd(momentum=β) scales Δ by it instead, η(βm + g): another rule as soon as
    the rate changes.
    """

    decay: float
    slots = 1

    def update(self, total: Flat, scale: float, rate: float, before: StateBuffers, after: StateBuffers) -> None:
        """As the class says."""
        (delta,), (new_delta,) = before.slots, after.slots
        np.multiply(total, total.dtype.type(-rate * scale), out=total)
        np.multiply(delta, delta.dtype.type(self.decay), out=new_delta)
        np.add(new_delta, total, out=new_delta)
        np.add(before.theta, new_delta, out=after.theta)
