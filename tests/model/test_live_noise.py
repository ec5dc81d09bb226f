"""An MLP on the digits: what the steps report of their noise, against the gradients of the single rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fixed_point import digits

from shardsgd.model.statistics import NoiseHistory

BATCH, SHARDS, SEEDS = 128, 8, 200


@pytest.fixture(scope="module")
def point():
    return digits(batch=BATCH, shards=SHARDS)


def assert_mean_is(values, expected, most_error):
    """Within 4.5 standard errors, which must be small enough to tell a bias."""
    values = np.array(values)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4.5 * error, (values.mean(), expected, error)
    assert 4.5 * error < most_error


@pytest.mark.parametrize("kind", ["shuffle", "replacement"])
def test_over_the_seeds_both_estimates_are_unbiased(point, kind):
    """Without replacement of the population that n rows are a sample of: tr Σ with divisor n - 1, |G|² less tr Σ/n."""
    n = point.rows
    sampling = replace(point.problem.sampling, kind=kind)
    noises = [point.step(replace(sampling, seed=seed), step=seed % 14)[1] for seed in range(SEEDS)]
    trace = point.trace * (n / (n - 1) if kind == "shuffle" else 1)
    norm_squared = point.gradient_squared - (trace / n if kind == "shuffle" else 0)
    assert_mean_is([noise.trace for noise in noises], trace, 0.1 * trace)
    assert_mean_is([noise.norm_squared for noise in noises], norm_squared, 0.3 * norm_squared)


@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_tells_the_variance_to_15_percent(point, seed):
    sampling = replace(point.problem.sampling, seed=seed)
    noises = [point.step(sampling, step)[1] for step in range(sampling.steps_per_epoch)]
    assert np.mean([noise.trace for noise in noises]) == pytest.approx(point.trace, rel=0.15)

    history = NoiseHistory()
    for noise in noises:
        history = history.after(noise)
    assert history.smoothed_trace == pytest.approx(point.trace, rel=0.15)
    low, high = history.noise_scale_interval
    assert low < point.trace / point.gradient_squared < (high or math.inf)
