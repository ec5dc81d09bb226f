"""Schedules against their formulas."""

import math
from itertools import pairwise

import numpy as np
import pytest

from shardsgd.model import schedules

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


@pytest.mark.parametrize(
    ("trace", "norm_squared", "expected"),
    [
        (8.0, 1.0, (8 / 4 + 1) / (8 / 16 + 1)),
        (0.0, 1.0, 1.0),  # all signal
        (8.0, 0.0, 4.0),  # all noise
        (8.0, -3.0, 4.0),
        (0.0, 0.0, 4.0),
        (-1.0, 1.0, 1.0),
        (1e300, 1e-300, 4.0),
        (math.inf, math.inf, 1.0),
        (math.nan, 1.0, 1.0),
    ],
)
def test_the_gain_is_between_signal_and_noise(trace, norm_squared, expected):
    assert schedules.gain(trace, norm_squared, 16, 4) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 5, 7])
def test_the_batch_that_was_tuned_for_or_less_gains_exactly_nothing(rows):
    assert schedules.gain(3.0, 0.7, rows, 7) == 1


def test_the_gain_grows_with_the_batch_and_ever_less():
    gains = [schedules.gain(100.0, 1.0, rows, 10) for rows in (10, 20, 40, 80, 160, 10**6)]
    assert all(low < high for low, high in pairwise(gains))
    assert gains[-1] == pytest.approx(1 + 100 / 10, rel=1e-3)  # at most all of the noise is averaged away
