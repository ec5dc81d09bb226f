"""Prediction, interval and slope of the variance, against closed forms and known quantiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.variance import Measured, finite_population, fitted_slope, measured_mean, predicted_variance

# scipy.stats.t.ppf(0.975, R − 1)
QUANTILES = {2: 12.7062047, 3: 4.3026527, 4: 3.1824463, 5: 2.7764451, 10: 2.2621572, 100: 1.9842169, 1000: 1.9623415}


@pytest.mark.parametrize("repeats", QUANTILES)
def test_the_interval_is_students(repeats):
    samples = np.random.default_rng(repeats).gamma(3.0, size=repeats) + 100
    found = measured_mean(samples)
    error = samples.std(ddof=1) / math.sqrt(repeats)
    assert found.value == pytest.approx(samples.mean(), rel=1e-12)
    assert found.error == pytest.approx(error, rel=1e-9)
    assert found.high - found.value == pytest.approx(QUANTILES[repeats] * error, rel=0.01)
    assert found.value - found.low == pytest.approx(found.high - found.value, rel=1e-9)


def test_an_interval_of_what_is_not_negative_does_not_begin_below_0():
    assert measured_mean(np.array([0.0, 1.0])).low == 0.0


@given(st.integers(1, 10**9), st.data())
def test_the_factor_of_a_finite_population(rows, data):
    batch = data.draw(st.integers(1, rows))
    factor = finite_population(rows, batch)
    assert 0 <= factor <= 1
    assert (factor == 0) == (batch == rows)
    assert rows == 1 or finite_population(rows, 1) == 1
    without = predicted_variance(6.0, rows, batch, "without_replacement")
    assert without == pytest.approx(6.0 / batch * factor)
    assert predicted_variance(6.0, rows, batch, "with_replacement") == 6.0 / batch


def test_the_factor_is_exact_for_every_set_of_rows():
    """E‖g_B − g‖² over all sets of B rows, by enumeration."""
    import itertools

    values = np.random.default_rng(0).normal(size=(6, 3))
    mean = values.mean(axis=0)
    trace = np.sum((values - mean) ** 2) / 6
    for batch in range(1, 7):
        sets = [values[list(rows)].mean(axis=0) - mean for rows in itertools.combinations(range(6), batch)]
        exact = np.mean([each @ each for each in sets])
        assert predicted_variance(trace, 6, batch, "without_replacement") == pytest.approx(exact, abs=1e-12)


def measured(value, error):
    return Measured(value, value - 2 * error, value + 2 * error, error)


@given(st.floats(-3, 1), st.floats(1e-3, 1e3))
def test_the_slope_of_a_power_law_is_its_exponent(exponent, scale):
    batches = [1, 2, 8, 64]
    points = [measured(scale * b**exponent, 1e-6 * scale * b**exponent) for b in batches]
    slope = fitted_slope(batches, points)
    assert slope.value == pytest.approx(exponent, abs=1e-6)
    assert slope.low < slope.value < slope.high


def test_what_is_known_better_counts_more():
    """The last point is off by a factor of two and hardly known."""
    points = [measured(1.0, 0.001), measured(0.5, 0.0005), measured(0.5, 0.4)]
    assert fitted_slope([1, 2, 4], points).value == pytest.approx(-1, abs=0.01)


def test_without_two_batch_sizes_there_is_no_slope():
    assert fitted_slope([], []) is None
    assert fitted_slope([4, 4], [measured(1.0, 0.1), measured(1.1, 0.1)]) is None
    assert fitted_slope([1, 2], [measured(1.0, 0.1), measured(0.0, 0.0)]) is None
    assert fitted_slope([1, 2], [measured(1.0, 0.1), measured(math.inf, math.nan)]) is None


def test_the_slopes_interval_holds_the_exponent_in_95_of_100():
    random, inside = np.random.default_rng(1), 0
    batches = [2**k for k in range(8)]
    for _ in range(1000):
        # As ‖g_B − g‖² of six equal directions.
        points = [measured_mean(random.chisquare(6, size=100) / 6 / b) for b in batches]
        slope = fitted_slope(batches, points)
        inside += slope.low <= -1 <= slope.high
    assert 930 <= inside <= 970
