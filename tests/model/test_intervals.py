"""Intervals against textbooks, and how often those of a history cover what is true."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.intervals import Estimate, mean_interval, ratio_interval, t_quantile
from shardsgd.model.statistics import NoiseHistory, StepNoise

# Percentage points of Student's t, 97.5%, from its tables.
STUDENT = {3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 30: 2.0423, 198: 1.9720, 1e9: 1.9600}
SEEDS = 600


@pytest.mark.parametrize(("freedom", "quantile"), STUDENT.items())
def test_quantiles_are_those_of_the_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, rel=0.01 if freedom < 5 else 2e-3)


@pytest.mark.parametrize("freedom", [0.0, 1.0, 2.9])
def test_too_few_steps_tell_nothing(freedom):
    assert t_quantile(freedom) is None


def test_a_mean_is_within_its_error():
    assert mean_interval(Estimate(5.0, 4.0), 1.5) == (2.0, 8.0)
    assert mean_interval(Estimate(5.0, -1e-20), 1.5) == (5.0, 5.0)


def is_within(ratio, numerator, denominator, covariance, quantile):
    """Whether numerator − ratio · denominator cannot be told from 0: what Fieller's interval is made of."""
    variance = numerator.variance - 2 * ratio * covariance + ratio**2 * denominator.variance
    return (numerator.mean - ratio * denominator.mean) ** 2 <= quantile**2 * variance


@given(
    st.floats(0.01, 10),
    st.floats(-10, 10),
    st.floats(1e-3, 3),
    st.floats(1e-3, 3),
    st.floats(-0.95, 0.95),
    st.floats(0.5, 4),
)
def test_a_ratio_is_within_exactly_where_the_difference_cannot_be_told_from_nothing(a, c, sd_a, sd_c, correlation, t):
    numerator, denominator = Estimate(a, sd_a**2), Estimate(c, sd_c**2)
    covariance = correlation * sd_a * sd_c
    low, high = ratio_interval(numerator, denominator, covariance, t)
    tried = np.geomspace(1e-6, 1e6, 400)
    fits = np.array([is_within(ratio, numerator, denominator, covariance, t) for ratio in tried])
    if low is None:
        # Nothing can be told, as both may be 0. Or no ratio fits, as one is below 0.
        assert high is None
        both_may_be_0 = abs(c) <= t * sd_c * 1.000001 and a <= t * sd_a * 1.000001
        assert both_may_be_0 or not fits.any()
        return
    margin = 1e-9
    inside = (tried > low * (1 + margin)) & (tried < (math.inf if high is None else high) * (1 - margin))
    outside = (tried < low * (1 - margin)) | (tried > (math.inf if high is None else high) * (1 + margin))
    assert fits[inside].all()
    assert not fits[outside].any()


def test_the_ends_of_well_known_means_are_those_of_the_error_carried_through():
    """Far from 0 Fieller's interval is the delta method's: var(a/c) = (v_a − 2R v_ac + R² v_c)/c²."""
    numerator, denominator, covariance = Estimate(6.0, 1e-6), Estimate(2.0, 4e-6), 1e-6
    reach = 2 * math.sqrt(1e-6 - 2 * 3 * 1e-6 + 9 * 4e-6) / 2
    low, high = ratio_interval(numerator, denominator, covariance, 2.0)
    assert low == pytest.approx(3 - reach, rel=1e-5)
    assert high == pytest.approx(3 + reach, rel=1e-5)


def test_a_denominator_that_may_be_0_leaves_no_upper_end():
    low, high = ratio_interval(Estimate(4.0, 0.01), Estimate(0.1, 0.04), 0.0, 2.0)
    assert 0 < low < 40
    assert high is None


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [
        (Estimate(0.1, 1.0), Estimate(0.1, 1.0)),  # both may be 0
        (Estimate(4.0, 0.01), Estimate(-2.0, 0.01)),  # below 0, which it is not
        (Estimate(math.inf, math.nan), Estimate(1.0, 0.1)),
    ],
)
def test_where_nothing_can_be_told_nothing_is(numerator, denominator):
    assert ratio_interval(numerator, denominator, 0.0, 2.0) == (None, None)


# Rows ~ N(mean, deviations²) in eight leaves of four: what a step's estimates are made of.
DEVIATIONS = np.linspace(0.2, 1.0, 30)
TRACE, LEAVES, ROWS = float(np.sum(DEVIATIONS**2)), 8, 4


def histories(norm_squared, steps):
    """Histories of many runs at fixed θ, by what a step's estimates are."""
    random = np.random.default_rng(11)
    mean = np.full(len(DEVIATIONS), math.sqrt(norm_squared / len(DEVIATIONS)))
    for _ in range(SEEDS):
        leaves = random.normal(mean, DEVIATIONS / math.sqrt(ROWS), (steps, LEAVES, len(DEVIATIONS)))
        centre = leaves.mean(axis=1)
        trace = ROWS / (LEAVES - 1) * np.sum((leaves - centre[:, None]) ** 2, axis=(1, 2))
        squared = np.sum(centre**2, axis=1) - trace / (LEAVES * ROWS)
        noises = (StepNoise(*pair, ROWS, {}) for pair in zip(trace.tolist(), squared.tolist(), strict=True))
        yield functools.reduce(NoiseHistory.after, noises, NoiseHistory())


def covers(interval, value):
    low, high = interval
    return low is not None and low <= value <= (math.inf if high is None else high)


@pytest.mark.parametrize("steps", [12, 60, 400])
@pytest.mark.parametrize("norm_squared", [0.03, 1.0, 30.0])
def test_intervals_cover_what_is_true_as_often_as_they_say(norm_squared, steps):
    """95%, give or take what 600 seeds and a skewed distribution make of it."""
    seen = list(histories(norm_squared, steps))
    for interval, value in (
        ("trace_interval", TRACE),
        ("norm_squared_interval", norm_squared),
        ("noise_scale_interval", TRACE / norm_squared),
    ):
        covered = np.mean([covers(getattr(history, interval), value) for history in seen])
        assert 0.90 <= covered <= 1.0, (interval, covered)
    # And they do not cover everything: a value well beside the truth is excluded where there are steps enough.
    if steps == 400:
        assert np.mean([covers(history.trace_interval, 1.1 * TRACE) for history in seen]) < 0.1
    if steps == 400 and norm_squared >= 1:
        twice = 2 * TRACE / norm_squared
        assert np.mean([covers(history.noise_scale_interval, twice) for history in seen]) < 0.1
        assert all(history.noise_scale_interval[1] is not None for history in seen)


def test_a_gradient_that_drowns_in_noise_leaves_the_scale_unbounded():
    seen = [history.noise_scale_interval for history in histories(0.0, 60)]
    unbounded = [low for low, high in seen if low is not None and high is None]
    assert len(unbounded) > 0.9 * len(seen)
    assert np.median(unbounded) > TRACE


def test_the_spread_is_the_weighted_variance_of_the_steps():
    """Against sums over all steps, far from 0, where sums of squares would cancel."""
    random = np.random.default_rng(3)
    traces, norms = 1e8 + random.normal(size=300), 1e6 + random.normal(size=300)
    noises = (StepNoise(*pair, 4.0, {}) for pair in zip(traces.tolist(), norms.tolist(), strict=True))
    history = functools.reduce(NoiseHistory.after, noises, NoiseHistory())
    weights = 0.99 ** np.arange(300)[::-1]
    weights /= weights.sum()
    of_mean = np.cov(np.stack([traces, norms]), aweights=weights) * np.sum(weights**2)
    low, high = history.trace_interval
    quantile = t_quantile(1 / np.sum(weights**2) - 1)
    assert (high - low) / 2 == pytest.approx(quantile * math.sqrt(of_mean[0, 0]), rel=1e-6)
    low, high = history.norm_squared_interval
    assert (high - low) / 2 == pytest.approx(quantile * math.sqrt(of_mean[1, 1]), rel=1e-6)
    factor = history._precision[0]
    assert history.joint_spread * factor == pytest.approx(of_mean[0, 1], rel=1e-5)


def test_a_few_steps_tell_nothing_yet():
    history = NoiseHistory()
    for number in range(6):
        told = history.trace_interval is not None
        assert told == (number > 4)
        assert (history.noise_scale_interval == (None, None)) == (not told)
        assert (history.norm_squared_interval is None) == (not told)
        history = history.after(StepNoise(2.0 + 0.1 * (number % 3), 1.0 + 0.1 * (number % 2), 4.0, {}))
