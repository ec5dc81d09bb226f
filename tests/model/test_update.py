"""Updates, regularizers and schedules against independent NumPy."""

import math

import jax
import numpy as np
import optax
import pytest

from shardsgd.model import schedules
from shardsgd.model.layout import Layout
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import momentum, sgd
from shardsgd.model.update import regularizer_program, update_program

NETWORK = Network(3, (5,), 2, "tanh")
RATES = [0.3, 0.2, 0.2, 0.1, 0.4, 0.05, 0.5, 0.01, 0.3, 0.07]
OPTIMIZERS = {"sgd": sgd(), "momentum": momentum(0.9)}


def random_flat(layout, seed):
    random = np.random.default_rng(seed)
    flat = layout.zeros()
    for view in layout.views(flat).values():
        view[...] = random.normal(size=view.shape)
    return flat


def masks(layout):
    """Which elements of a buffer are weights, and which are padding."""
    weights, padding = np.zeros(layout.length, bool), np.ones(layout.length, bool)
    for entry in layout.entries:
        weights[entry.span] = entry.name.endswith("weight")
        padding[entry.span] = False
    return weights, padding


@pytest.mark.parametrize(("l1", "l2"), [(0, 0), (0.03, 0), (0, 0.2), (0.03, 0.2)])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-5)])
def test_ten_steps(kind, l1, l2, dtype, tolerance):
    layout = NETWORK.layout(np.dtype(dtype))
    weights, padding = masks(layout)
    program = update_program(layout, OPTIMIZERS[kind], l1=l1, l2=l2)
    theta = random_flat(layout, 0)
    state = OPTIMIZERS[kind].init(theta)
    expected, delta = theta.astype(np.float64), np.zeros(layout.length)
    decay = 0.9 if kind == "momentum" else 0
    for t, rate in enumerate(RATES):
        gradient_sum, weight_sum = 5 * random_flat(layout, 100 + t), float(7 + t)
        updated = program(theta, state, gradient_sum, weight_sum, rate)
        theta, state = np.asarray(updated.theta), updated.optimizer_state

        gradient = gradient_sum.astype(np.float64) / weight_sum
        gradient[weights] += l1 * np.sign(expected[weights]) + l2 * expected[weights]
        delta = decay * delta - rate * gradient
        expected = expected + delta
        np.testing.assert_allclose(theta, expected, rtol=tolerance, atol=tolerance)
        assert updated.gradient_squared_norm == pytest.approx(np.sum(gradient**2), rel=max(tolerance, 1e-12))
        assert updated.finite
        assert theta.dtype == dtype
        assert not theta[padding].any()
        assert not any(np.asarray(leaf)[padding].any() for leaf in jax.tree.leaves(state))
    assert program._cache_size() == 1


def test_theta_is_new_memory():
    layout = NETWORK.layout(np.dtype(np.float32))
    theta, gradient = random_flat(layout, 0), random_flat(layout, 1)
    before = theta.copy(), gradient.copy()
    updated = update_program(layout, sgd(), l1=0.1, l2=0.1)(theta, sgd().init(theta), gradient, 3.0, 0.1)
    assert not np.shares_memory(np.asarray(updated.theta), theta)
    np.testing.assert_array_equal(theta, before[0])
    np.testing.assert_array_equal(gradient, before[1])


def test_the_subgradient_of_l1_at_zero_is_zero():
    layout = Layout.pack([("layer0.weight", (3,)), ("layer0.bias", (2,))], np.dtype(np.float64))
    theta = layout.fill(layout.zeros(), {"layer0.weight": [0.0, -0.0, 2.0], "layer0.bias": [3.0, 4.0]})
    updated = update_program(layout, sgd(), l1=0.5, l2=0)(theta, sgd().init(theta), layout.zeros(), 1.0, 1.0)
    views = layout.views(np.asarray(updated.theta))
    np.testing.assert_array_equal(views["layer0.weight"], [0, 0, 1.5])
    np.testing.assert_array_equal(views["layer0.bias"], [3, 4])


@pytest.mark.parametrize(("l1", "l2"), [(0, 0.3), (0.2, 0), (0.2, 0.3)])
def test_regularizer(l1, l2):
    layout = NETWORK.layout(np.dtype(np.float64))
    theta = random_flat(layout, 4)
    views = layout.views(theta)
    w = np.concatenate([views["layer0.weight"].ravel(), views["layer1.weight"].ravel()])
    program = regularizer_program(layout, l1=l1, l2=l2)
    assert program(theta) == pytest.approx(l1 * np.abs(w).sum() + l2 * np.sum(w**2) / 2, rel=1e-13)


def test_the_update_uses_the_gradient_of_the_regularizer():
    layout = NETWORK.layout(np.dtype(np.float64))
    theta = random_flat(layout, 5)
    gradient = jax.grad(regularizer_program(layout, l1=0.2, l2=0.3))(theta)
    updated = update_program(layout, sgd(), l1=0.2, l2=0.3)(theta, sgd().init(theta), layout.zeros(), 1.0, 1.0)
    np.testing.assert_allclose(theta - updated.theta, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_shows(kind, bad):
    layout = NETWORK.layout(np.dtype(np.float32))
    theta, gradient = random_flat(layout, 0), layout.zeros()
    gradient[layout.entries[-1].offset] = bad
    program = update_program(layout, OPTIMIZERS[kind], l1=0, l2=0)
    assert not program(theta, OPTIMIZERS[kind].init(theta), gradient, 1.0, 0.1).finite


def test_an_update_that_overflows_shows():
    layout = NETWORK.layout(np.dtype(np.float32))
    theta = random_flat(layout, 0)
    gradient = np.full(layout.length, 1e30, np.float32)
    program = update_program(layout, sgd(), l1=0, l2=0)
    assert program(theta, sgd().init(theta), gradient, 1.0, 1.0).finite
    assert not program(theta, sgd().init(theta), gradient, 1.0, 1e9).finite


def momentum_paths(rates):
    """θ after each rate by our rule and by optax.sgd's, for constant gradient 1."""
    ours, theirs, found = momentum(0.9), optax.inject_hyperparams(optax.sgd)(rates[0], momentum=0.9), []
    a = b = np.zeros(1)
    state_a, state_b = ours.init(a), theirs.init(b)
    for rate in rates:
        step_a, state_a = ours.update(np.ones(1), state_a, a, learning_rate=rate)
        state_b.hyperparams["learning_rate"] = rate
        step_b, state_b = theirs.update(np.ones(1), state_b, b)
        a, b = a + step_a, b + step_b
        found.append((float(a[0]), float(b[0])))
    return found


def test_momentum_is_optax_momentum_only_while_the_rate_is_constant():
    for ours, theirs in momentum_paths([0.1] * 5):
        assert ours == pytest.approx(theirs, rel=1e-6)
    ours, theirs = momentum_paths([0.1, 0.01])[-1]
    assert ours == pytest.approx(-0.1 + (-0.09 - 0.01))
    assert theirs == pytest.approx(-0.1 - 0.01 * 1.9, rel=1e-6)


STEPS = range(10_001)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (schedules.constant(), lambda t: np.ones(len(t))),
        (schedules.polynomial(0.5), lambda t: 1 / np.sqrt(t + 1)),
        (schedules.polynomial(1), lambda t: 1 / (t + 1)),
        (schedules.polynomial(2), lambda t: 1 / (t + 1) ** 2),
        (schedules.polynomial(0.3), lambda t: np.exp(-0.3 * np.log(t + 1))),
        (schedules.step(0.5, 3000), lambda t: np.select([t < 3000, t < 6000, t < 9000], [1, 0.5, 0.25], 0.125)),
        (schedules.step(0.9, 7), lambda t: np.exp(np.floor(t / 7) * np.log(0.9))),
        (schedules.exponential(1e-3), lambda t: np.exp(-1e-3) ** t),
    ],
)
def test_schedules_are_their_formulas(schedule, formula):
    rates = [schedule(t) for t in STEPS]
    assert rates[0] == 1
    assert all(type(rate) is float for rate in rates)
    np.testing.assert_allclose(rates, formula(np.array(STEPS)), rtol=1e-11)


@pytest.mark.parametrize("schedule", [schedules.step(0.1, 1), schedules.exponential(5.0), schedules.polynomial(100.0)])
def test_schedules_vanish_quietly(schedule):
    assert 0 <= schedule(10**9) < math.ulp(0.0) * 2
