"""Update rules: what a gradient does to parameters, element by element and in place.

NumPy, not XLA: a compiled update of the same block takes three times as long, because its results are new memory and must be
copied to where workers read them. And NumPy rounds every operation by itself: the same bits on every kind of CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]


class Optimizer(Protocol):
    """An update rule. It works element by element, so that blocks can be updated each by itself.

    Attributes:
        slots: how many arrays of θ's shape it remembers; they begin as zeros.
    """

    slots: int

    def update(
        self,
        total: Block,
        scale: float,
        rate: float,
        theta: Block,
        slots: Sequence[Block],
        new_theta: Block,
        new_slots: Sequence[Block],
    ) -> None:
        """Writes the successors of θ and of the slots; may write over `total`, and over nothing else.

        Args:
            total: the gradient g, but for a factor.
            scale: that factor: g = scale · total.
            rate: η.
            theta: θ.
            slots: what is remembered.
            new_theta: memory for the next θ.
            new_slots: memory for the next slots.
        """


@dataclass(frozen=True)
class Sgd:
    """θ ← θ − ηg."""

    slots = 0

    def update(
        self,
        total: Block,
        scale: float,
        rate: float,
        theta: Block,
        slots: Sequence[Block],
        new_theta: Block,
        new_slots: Sequence[Block],
    ) -> None:
        """As the class says."""
        del slots, new_slots
        np.multiply(total, total.dtype.type(-rate * scale), out=total)
        np.add(theta, total, out=new_theta)


@dataclass(frozen=True)
class Momentum:
    """Δ ← βΔ − ηg, θ ← θ + Δ, with β = `decay`.

    The rate goes into Δ, as in the rule above. optax.sgd(momentum=β) scales Δ by it instead, η(βm + g): another rule as soon as
    the rate changes.
    """

    decay: float
    slots = 1

    def update(
        self,
        total: Block,
        scale: float,
        rate: float,
        theta: Block,
        slots: Sequence[Block],
        new_theta: Block,
        new_slots: Sequence[Block],
    ) -> None:
        """As the class says."""
        (delta,), (new_delta,) = slots, new_slots
        np.multiply(total, total.dtype.type(-rate * scale), out=total)
        np.multiply(delta, delta.dtype.type(self.decay), out=new_delta)
        np.add(new_delta, total, out=new_delta)
        np.add(theta, new_delta, out=new_theta)
