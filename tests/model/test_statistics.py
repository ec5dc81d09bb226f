"""Noise estimates against their definitions, and their unbiasedness by sampling."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.statistics import NoiseHistory, StepNoise, step_noise
from shardsgd.model.sums import squared_norm
from shardsgd.model.tree import subtree

DIMENSIONS = 6
MEAN = np.array([0.3, -0.2, 0.1, 0.0, 0.25, -0.1])
DEVIATIONS = np.array([1.0, 0.5, 0.2, 0.8, 0.1, 0.3])
TRACE, NORM_SQUARED = float(np.sum(DEVIATIONS**2)), float(np.sum(MEAN**2))
EQUAL, UNEQUAL, WITH_EMPTY = (4,) * 8, (3, 1, 4, 1, 5, 2, 6, 5), (3, 0, 4, 0, 5, 2, 1, 5)
NOT_A_POWER = (2, 3, 2, 3, 2, 1)


def node_norms(sums):
    """‖Σ gradients‖² of every node of the tree over the leaves' gradient sums."""
    return {(start, stop): squared_norm(sums[start:stop].sum(axis=0)) for start, stop in subtree((0, len(sums)))}


def leaf_sums(random, counts):
    """Gradient sums of leaves whose rows are drawn from N(MEAN, DEVIATIONS²)."""
    return np.stack([random.normal(MEAN, DEVIATIONS, (m, DIMENSIONS)).sum(axis=0) for m in counts])


@functools.cache
def many_estimates(counts, repeats=3000):
    random = np.random.default_rng(2024)
    return [step_noise(node_norms(leaf_sums(random, counts)), counts) for _ in range(repeats)]


def assert_mean_is(values, expected):
    """Within 4.5 standard errors, which are small enough to tell a bias of a tenth."""
    values = np.array(values)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4.5 * error, (values.mean(), expected, error)
    assert 4.5 * error < 0.1 * TRACE


@given(st.integers(2, 64), st.integers(1, 9), st.integers(0, 10**6))
def test_equal_leaves_give_the_definition(shards, b, seed):
    """tr Σ̂ = b/(V-1) · Σ_s ‖ḡ_s - ḡ‖² and |G|²̂ = ‖ḡ‖² - tr Σ̂/B."""
    sums = leaf_sums(np.random.default_rng(seed), [b] * shards)
    noise = step_noise(node_norms(sums), [b] * shards)
    means = sums / b
    mean = means.mean(axis=0)
    trace = b / (shards - 1) * np.sum((means - mean) ** 2)
    assert noise.trace == pytest.approx(trace, rel=1e-9)
    assert noise.norm_squared == pytest.approx(mean @ mean - trace / (shards * b), rel=1e-9, abs=1e-12)
    assert noise.leaf_rows == b


@given(st.integers(2, 64), st.integers(1, 9), st.integers(0, 10**6))
def test_equal_leaves_give_the_estimates_of_mccandlish(shards, b, seed):
    """Appendix A.2 with B_small = b, B_big = B and |G_small|² averaged over the leaves."""
    sums = leaf_sums(np.random.default_rng(seed), [b] * shards)
    big = shards * b
    small_norm = np.mean(np.sum((sums / b) ** 2, axis=1))
    big_norm = np.sum((sums.sum(axis=0) / big) ** 2)
    noise = step_noise(node_norms(sums), [b] * shards)
    assert noise.norm_squared == pytest.approx((big * big_norm - b * small_norm) / (big - b), rel=1e-9, abs=1e-12)
    assert noise.trace == pytest.approx((small_norm - big_norm) / (1 / b - 1 / big), rel=1e-9)


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL, WITH_EMPTY, NOT_A_POWER, (1, 1)], ids=str)
def test_the_estimates_are_unbiased(counts):
    estimates = many_estimates(counts)
    assert_mean_is([noise.trace for noise in estimates], TRACE)
    assert_mean_is([noise.norm_squared for noise in estimates], NORM_SQUARED)


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL, NOT_A_POWER], ids=str)
def test_pairs_are_unbiased_at_every_level(counts):
    estimates = many_estimates(counts)
    levels = {1: 3, 2: 1} if counts == NOT_A_POWER else {1: 4, 2: 2, 4: 1}
    for leaves, number in levels.items():
        assert all(noise.pairs[leaves][1] == number for noise in estimates)
        assert_mean_is([noise.pairs[leaves][0] / number for noise in estimates], TRACE)
    assert all(set(noise.pairs) == set(levels) for noise in estimates)


def test_pairs_are_their_definition():
    """‖ḡ_l - ḡ_r‖² / (1/m_l + 1/m_r) for each node with equally many leaves on both sides."""
    sums = leaf_sums(np.random.default_rng(3), UNEQUAL)
    rows = np.array(UNEQUAL)
    expected = {}
    for leaves in (1, 2, 4):
        grouped, m = sums.reshape(-1, leaves, DIMENSIONS).sum(axis=1), rows.reshape(-1, leaves).sum(axis=1)
        means = grouped / m[:, None]
        distances = np.sum((means[::2] - means[1::2]) ** 2, axis=1)
        expected[leaves] = np.sum(distances / (1 / m[::2] + 1 / m[1::2]))
    pairs = step_noise(node_norms(sums), UNEQUAL).pairs
    assert {leaves: total for leaves, (total, _) in pairs.items()} == pytest.approx(expected, rel=1e-10)


def test_the_estimates_do_not_depend_on_the_order_in_which_norms_arrived():
    """Norms come in the order of the workers' answers; the same bits must come out."""
    counts = (4,) * 64
    norms = node_norms(leaf_sums(np.random.default_rng(5), counts))
    expected = step_noise(norms, counts)
    random = np.random.default_rng(6)
    for _ in range(20):
        shuffled = {node: norms[node] for node in random.permutation(list(norms)).tolist() for node in [tuple(node)]}
        assert step_noise(shuffled, counts) == expected


def test_leaves_without_rows_are_ignored():
    counts = (3, 2, 4, 0, 0, 0)
    sums = leaf_sums(np.random.default_rng(7), counts)
    noise = step_noise(node_norms(sums), counts)
    without = step_noise(node_norms(sums[:3]), counts[:3])
    assert noise.trace == pytest.approx(without.trace, rel=1e-12)
    assert noise.norm_squared == pytest.approx(without.norm_squared, rel=1e-12)
    assert noise.pairs == {}


@pytest.mark.parametrize("counts", [(5,), (5, 0), (0, 0, 3, 0)])
def test_fewer_than_two_leaves_with_rows_give_nothing(counts):
    assert step_noise(node_norms(leaf_sums(np.random.default_rng(8), counts)), counts) is None


def test_equal_gradients_have_no_noise():
    noise = step_noise(node_norms(np.tile(2 * MEAN, (8, 1))), (2,) * 8)
    assert noise.trace == pytest.approx(0, abs=1e-12)
    assert noise.norm_squared == pytest.approx(NORM_SQUARED)


def history_of(noises):
    return functools.reduce(NoiseHistory.after, noises, NoiseHistory())


@pytest.mark.parametrize("steps", [1, 2, 30, 1000])
def test_smoothing_is_the_weighted_mean_of_the_steps(steps):
    random = np.random.default_rng(9)
    traces, norms = random.exponential(size=steps) + 1, random.exponential(size=steps) + 0.1
    history = history_of(StepNoise(*pair, 4.0, {}) for pair in zip(traces.tolist(), norms.tolist(), strict=True))
    weights = 0.99 ** np.arange(steps)[::-1]
    trace, norm = np.average(traces, weights=weights), np.average(norms, weights=weights)
    assert history.smoothed_trace == pytest.approx(trace, rel=1e-10)
    assert history.smoothed_norm_squared == pytest.approx(norm, rel=1e-10)
    assert history.noise_scale == pytest.approx(trace / norm, rel=1e-10)


def test_an_empty_history_knows_nothing():
    history = NoiseHistory()
    assert history.smoothed_trace is history.smoothed_norm_squared is history.noise_scale is None
    assert history.variance_by_rows() == []
    assert history.after(None) is history


@pytest.mark.parametrize(("trace", "norm_squared"), [(2.0, 0.0), (2.0, -0.5), (0.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)])
def test_no_noise_scale_where_an_estimate_is_not_positive(trace, norm_squared):
    assert history_of([StepNoise(trace, norm_squared, 4.0, {})]).noise_scale is None


def test_one_negative_step_does_not_undo_the_noise_scale():
    noises = [StepNoise(2.0, 1.0, 4.0, {})] * 50 + [StepNoise(2.0, -1.0, 4.0, {})]
    assert history_of(noises).noise_scale == pytest.approx(2 / (1 - 2 * 0.01 / (1 - 0.99**51)), rel=1e-10)


def test_a_history_is_not_changed_by_what_follows():
    noise = StepNoise(2.0, 1.0, 4.0, {1: (8.0, 4)})
    first = history_of([noise])
    first.after(noise)
    assert first == history_of([noise])
    assert noise.pairs == {1: (8.0, 4)}


def test_variance_by_rows():
    """Means over steps and pairs; a step without pairs (the last, short one of an epoch) enters neither column."""
    history = history_of(
        [
            StepNoise(2.0, 1.0, 4.0, {1: (8.0, 4), 2: (5.0, 2), 4: (1.0, 1)}),
            StepNoise(100.0, 1.0, 0.5, {}),
            StepNoise(4.0, 1.0, 4.0, {1: (16.0, 4), 2: (7.0, 2), 4: (5.0, 1)}),
        ]
    )
    assert history.variance_by_rows() == [
        (4.0, pytest.approx(3 / 4), pytest.approx(3 / 4)),
        (8.0, pytest.approx(3 / 8), pytest.approx(3 / 8)),
        (16.0, pytest.approx(3 / 16), pytest.approx(3 / 16)),
    ]


def test_variance_by_rows_measures_the_variance_of_averages():
    history = history_of(many_estimates(EQUAL))
    points = history.variance_by_rows()
    assert [rows for rows, _, _ in points] == [4, 8, 16]
    for rows, measured, predicted in points:
        assert measured == pytest.approx(TRACE / rows, rel=0.1)
        assert predicted == pytest.approx(TRACE / rows, rel=0.1)
