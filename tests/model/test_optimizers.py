"""Update rules: the bits of their formulas, element by element, and what optax makes of the same gradients."""

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.optimizers import Momentum, Sgd, StateBuffers

OPTIMIZERS = {"sgd": Sgd(), "momentum": Momentum(0.9)}


def formula(kind, total, scale, rate, theta, slots):
    """θ and the slots after a step with g = scale · total, every operation rounded to the arrays' dtype."""
    number = total.dtype.type
    step = number(-rate * scale) * total
    if kind == "sgd":
        return theta + step, []
    delta = number(0.9) * slots[0] + step
    return theta + delta, [delta]


def updated(optimizer, total, scale, rate, theta, slots):
    """The same by a rule of ours, into memory that holds junk; what it may only read is read-only."""
    new_theta, new_slots = np.full_like(theta, np.nan), [np.full_like(slot, np.nan) for slot in slots]
    for array in (theta, *slots):
        array.flags.writeable = False
    before, after = StateBuffers(theta, tuple(slots)), StateBuffers(new_theta, tuple(new_slots))
    optimizer.update(total.copy(), scale, rate, before, after)
    return new_theta, new_slots


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@given(
    size=st.integers(0, 50),
    cut=st.integers(0, 50),
    rows=st.integers(1, 10**6),
    rate=st.floats(1e-6, 10),
    seed=st.integers(0, 10**6),
)
def test_a_step_has_the_bits_of_its_formula_however_it_is_cut(kind, dtype, size, cut, rows, rate, seed):
    optimizer, scale = OPTIMIZERS[kind], 1 / rows
    total, theta, *slots = np.random.default_rng(seed).normal(size=(2 + optimizer.slots, size)).astype(dtype)
    new_theta, new_slots = formula(kind, total, scale, rate, theta, slots)
    whole = updated(optimizer, total, scale, rate, theta, slots)
    assert whole[0].tobytes() == new_theta.tobytes()
    assert [slot.tobytes() for slot in whole[1]] == [slot.tobytes() for slot in new_slots]
    for part in (slice(0, cut), slice(cut, None)):
        some = updated(optimizer, total[part], scale, rate, theta[part], [slot[part] for slot in slots])
        assert some[0].tobytes() == new_theta[part].tobytes()
        assert [slot.tobytes() for slot in some[1]] == [slot[part].tobytes() for slot in new_slots]


def momentum_paths(rates):
    """θ after each rate by our rule and by optax.sgd's, for constant gradient 1."""
    theirs, found = optax.inject_hyperparams(optax.sgd)(rates[0], momentum=0.9), []
    a = b = slot = np.zeros(1)
    state = theirs.init(b)
    for rate in rates:
        a, (slot,) = updated(Momentum(0.9), np.full(1, 4.0), 1 / 4, rate, a, [slot])
        state.hyperparams["learning_rate"] = rate
        step, state = theirs.update(np.ones(1), state, b)
        b = b + step
        found.append((float(a[0]), float(b[0])))
    return found


def test_momentum_is_optax_momentum_only_while_the_rate_is_constant():
    for ours, theirs in momentum_paths([0.1] * 5):
        assert ours == pytest.approx(theirs, rel=1e-6)
    ours, theirs = momentum_paths([0.1, 0.01])[-1]
    assert ours == pytest.approx(-0.1 + (-0.09 - 0.01))
    assert theirs == pytest.approx(-0.1 - 0.01 * 1.9, rel=1e-6)


def test_sgd_is_optax_sgd_at_any_rate():
    random = np.random.default_rng(0)
    theta = random.normal(size=8)
    for rate in (0.1, 0.01, 3.0):
        gradient = random.normal(size=8)
        theirs = optax.sgd(rate)
        step, _ = theirs.update(gradient, theirs.init(theta), theta)
        ours, _ = updated(Sgd(), 5 * gradient, 1 / 5, rate, theta, [])
        np.testing.assert_allclose(ours, theta + np.asarray(step), rtol=1e-12)
