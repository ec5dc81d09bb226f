"""r(θ) and its gradient against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shardsgd.model.regularizer import Regularizer

FACTORS = [(0.2, 0.0), (0.0, 0.3), (0.2, 0.3)]


def formula(weights, l1, l2):
    return l1 * jnp.sum(jnp.abs(weights)) + l2 / 2 * jnp.sum(weights**2)


@pytest.mark.parametrize(("l1", "l2"), FACTORS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-6)])
def test_value_and_gradient(l1, l2, dtype, tolerance):
    random = np.random.default_rng(0)
    weights, gradient = random.normal(size=(2, 3000)).astype(dtype)
    weights.flags.writeable = False
    regularizer, before = Regularizer(l1, l2), gradient.copy()
    wide = weights.astype(np.float64)
    assert regularizer.value(weights) == pytest.approx(float(formula(wide, l1, l2)), rel=tolerance)
    regularizer.add_gradient(weights, gradient)
    assert gradient.dtype == dtype
    expected = before + np.asarray(jax.grad(formula)(wide, l1, l2))
    np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance)


def test_the_subgradient_of_l1_at_zero_is_zero():
    gradient = np.full(4, 7.0)
    Regularizer(l1=0.5).add_gradient(np.array([0.0, -0.0, 2.0, -1e-300]), gradient)
    assert gradient.tolist() == [7, 7, 7.5, 6.5]


def test_without_factors_there_is_none():
    weights, gradient = np.array([1.0, -2.0]), np.array([3.0, 4.0])
    assert not Regularizer()
    assert Regularizer().value(weights) == 0
    Regularizer().add_gradient(weights, gradient)
    assert gradient.tolist() == [3, 4]


@pytest.mark.parametrize(("l1", "l2"), FACTORS)
def test_with_a_factor_there_is_one(l1, l2):
    assert Regularizer(l1, l2)


def test_the_value_of_weights_whose_squares_float32_cannot_hold():
    assert Regularizer(l2=0.5).value(np.full(2000, 1e30, np.float32)) == pytest.approx(0.25 * 2000 * 1e60, rel=1e-5)
    assert Regularizer(l1=0.5).value(np.full(2000, 3e38, np.float32)) == pytest.approx(0.5 * 2000 * 3e38, rel=1e-5)
