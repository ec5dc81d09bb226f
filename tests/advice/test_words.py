"""What a run alone says of its batch size."""

import doctest

from shardsgd.coordinator.advice import words
from shardsgd.coordinator.advice.words import advice_line
from shardsgd.coordinator.records import GradientNoise


def noise(scale, low, high):
    return GradientNoise(None, None, scale, (), noise_scale_low=low, noise_scale_high=high)


def test_examples_in_the_docstrings_hold():
    outcome = doctest.testmod(words)
    assert outcome.attempted >= 2
    assert outcome.failed == 0


def test_the_line_at_the_end_of_a_run_has_the_shares_and_the_steps():
    line = advice_line(noise(900.0, 600.0, 1400.0), 256)
    assert "22% (15% to 30%)" in line
    assert "0.61 times the steps" in line
    assert "shardsgd advise" in line


def test_without_an_upper_bound_the_least_is_nothing():
    assert "22% (0% to 30%)" in advice_line(noise(900.0, 600.0, None), 256)


def test_what_cannot_be_told_is_said():
    for each in (noise(None, None, None), noise(900.0, None, None), noise(None, 100.0, None)):
        assert "cannot be told" in advice_line(each, 256)
