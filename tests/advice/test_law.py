"""The laws of batch sizes against their closed forms and their limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.advice.law import efficiency, progress_ratio, steps_factor

sizes = st.integers(1, 2**20)
scales = st.floats(1e-3, 1e9)


def test_at_the_noise_scale_a_step_makes_half_the_progress_and_twice_the_steps_are_needed():
    assert efficiency(900, 900.0) == 0.5
    assert steps_factor(900, 900.0) == 2.0
    assert efficiency(256, 900.0) == pytest.approx(256 / 1156)


@given(sizes, sizes, scales)
def test_progress_times_steps_is_the_same_for_every_batch_size(batch, present, scale):
    assert progress_ratio(batch, present, scale) == pytest.approx(
        efficiency(batch, scale) / efficiency(present, scale), rel=1e-9
    )
    assert progress_ratio(batch, present, scale) * progress_ratio(present, batch, scale) == pytest.approx(1)


@given(sizes, sizes)
def test_the_rate_is_linear_far_below_the_noise_scale_and_constant_far_above(batch, present):
    assert progress_ratio(batch, present, math.inf) == batch / present
    assert progress_ratio(batch, present, 1e15) == pytest.approx(batch / present, rel=1e-6)
    assert progress_ratio(batch, present, 0.0) == 1


@given(sizes, scales)
def test_more_rows_never_make_less_progress(batch, scale):
    assert efficiency(2 * batch, scale) >= efficiency(batch, scale)
    assert 1 <= progress_ratio(2 * batch, batch, scale) <= 2


def test_without_end_a_noise_scale_leaves_no_progress():
    assert efficiency(256, math.inf) == 0
