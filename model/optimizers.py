"""Update rules as optax transformations that take the rate of the step as an extra argument.

The rate is an argument, not a state, because the schedule belongs to the step loop (a plateau or a resume may change it), and
because a rate that is an argument never recompiles the update.
"""

from __future__ import annotations

from typing import Any

import jax
import optax


def sgd() -> optax.GradientTransformationExtraArgs:
    """θ ← θ − ηg."""
    return _scale_by_given_rate()


def momentum(decay: float) -> optax.GradientTransformationExtraArgs:
    """Δ ← βΔ − ηg, θ ← θ + Δ, with β = `decay`.

    The rate goes into the trace, as in the rule above. optax.sgd(momentum=β) scales the trace instead, η(βm + g): another
    rule as soon as the rate changes.
    """
    return optax.chain(_scale_by_given_rate(), optax.trace(decay=decay))


def _scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    def update(updates: Any, state: Any, params: Any = None, *, learning_rate: Any, **extra: Any) -> tuple[Any, Any]:
        del params, extra
        return jax.tree.map(lambda g: -learning_rate * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
