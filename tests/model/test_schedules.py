"""Schedules against their formulas."""

import math

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
