"""Real rows, the real sampler and leaf program: minibatch gradients are unbiased and their noise is measured."""

from dataclasses import replace

import numpy as np
import pytest
from fixed_point import breast_cancer

from shardsgd.model.sampling import Sampling
from shardsgd.model.statistics import NoiseHistory

BATCH, SHARDS = 32, 8


@pytest.fixture(scope="module")
def point():
    return breast_cancer(batch=BATCH, shards=SHARDS)


def assert_unbiased(point, gradients, variance):
    """E‖g_B - ∇L‖² is `variance`, and the mean of N independent g_B is off by no more than chance.

    By chance ‖mean - ∇L‖² is about variance/N, spread widely (few directions hold most of it): 4 times that is a bias.
    """
    deviations = np.stack(gradients) - point.gradient
    mean_square = np.mean(np.sum(deviations**2, axis=1))
    assert mean_square == pytest.approx(variance, rel=0.2)
    off = np.sum(deviations.mean(axis=0) ** 2)
    assert 0 < off < 4 * variance / len(gradients)
    assert off < 0.05 * point.gradient_squared


def test_with_replacement(point):
    """E g_B = ∇L and E‖g_B - ∇L‖² = tr(Σ)/B."""
    sampling = replace(point.problem.sampling, kind="replacement")
    gradients = [point.step(sampling, step)[0] for step in range(300)]
    assert_unbiased(point, gradients, point.trace / BATCH)


def test_shuffled(point):
    """Over the seeds a step is B rows without replacement: E‖g_B - ∇L‖² = tr(Σ)/B · (n - B)/(n - 1)."""
    sampling, n = point.problem.sampling, point.rows
    gradients = [point.step(replace(sampling, seed=seed), step=seed % 17)[0] for seed in range(300)]
    assert_unbiased(point, gradients, point.trace / BATCH * (n - BATCH) / (n - 1))


def test_a_shuffled_epoch_is_the_full_gradient(point):
    sampling = point.problem.sampling
    steps = range(3 * sampling.steps_per_epoch, 4 * sampling.steps_per_epoch)
    total = sum(point.step(sampling, step)[0] * sampling.step_rows(step) for step in steps)
    np.testing.assert_allclose(total / point.rows, point.gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["shuffle", "replacement"])
def test_the_leaves_measure_the_noise(point, kind):
    """Means over 400 steps against the per-example gradients: tr Σ within 5%, |G|² within a few standard errors."""
    sampling = replace(point.problem.sampling, kind=kind)
    noises = [point.step(sampling, step)[1] for step in range(400)]
    assert np.mean([noise.trace for noise in noises]) == pytest.approx(point.trace, rel=0.05)
    norms = np.array([noise.norm_squared for noise in noises])
    assert abs(norms.mean() - point.gradient_squared) < 4.5 * norms.std() / np.sqrt(len(norms))

    history = NoiseHistory()
    for noise in noises:
        history = history.after(noise)
    assert history.noise_scale == pytest.approx(point.trace / point.gradient_squared, rel=0.5)
    for rows, measured, predicted in history.variance_by_rows():
        assert measured == pytest.approx(point.trace / rows, rel=0.15)
        assert predicted == pytest.approx(point.trace / rows, rel=0.05)


def test_a_larger_batch_has_a_smaller_variance_by_as_much(point):
    """1/B: from B = 8 to B = 128 the measured variance falls to a sixteenth."""
    measured = {}
    for batch in (8, 128):
        sampling = Sampling(0, point.rows, batch, SHARDS, "replacement")
        deviations = [point.step(sampling, step)[0] - point.gradient for step in range(200)]
        measured[batch] = np.mean(np.sum(np.stack(deviations) ** 2, axis=1))
    assert measured[8] / measured[128] == pytest.approx(16, rel=0.3)
