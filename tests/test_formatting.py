"""Numbers as people read them."""

import doctest
import math

import pytest

from shardsgd import formatting
from shardsgd.formatting import compact, duration, noise_in_words, number, percent, plural, rows


def test_examples_in_the_docstrings_hold():
    outcome = doctest.testmod(formatting)
    assert outcome.attempted >= 6
    assert outcome.failed == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (1.0, "1"),
        (0.00012344, "0.0001234"),
        (0.000012344, "1.234e-5"),
        (999.96, "1,000"),
        (-12345.6, "-12,350"),
        (9_999_000.0, "9,999,000"),
        (9_999_999.0, "1e7"),
        (1.7e308, "1.7e308"),
        (5e-324, "4.941e-324"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (None, "n/a"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00042, "0.42 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (3599.4, "59 m 59 s"),
        (3599.6, "1 h 00 m"),
        (86_369, "23 h 59 m"),
        (86_371, "1 d 00 h"),
        (10 * 86_400, "10 d 00 h"),
        (math.inf, "n/a"),
        (None, "n/a"),
    ],
)
def test_duration_never_shows_sixty_of_a_unit(seconds, text):
    assert duration(seconds) == text


def test_percent_of_nothing_is_not_zero():
    assert percent(None) == "n/a"
    assert percent(0.0) == "0.00%"


def test_plural_counts_exactly_and_rounds_fractions():
    assert plural(1_234_567, "step") == "1,234,567 steps"
    assert plural(1.0, "epoch") == "1 epoch"
    assert plural(0.66667, "epoch") == "0.6667 epochs"


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (8, "well below"),
        (103, "well below"),
        (104, "same order"),
        (931, "same order"),
        (932, "well above"),
        (10**6, "well above"),
    ],
)
def test_noise_is_compared_by_order_of_magnitude(batch, words):
    text = noise_in_words(310.4, batch)
    assert "310 rows" in text
    assert f"a batch of {batch:,} is" in text
    assert words in text


@pytest.mark.parametrize(
    ("scale", "low", "high", "text"),
    [
        (310.4, 240.2, 421.0, "310 rows (240 to 420), "),
        (1234.4, 903.0, 1699.0, "1,234 rows (900 to 1,700), "),
        (1.0, 0.5, 2.0, "1 row (0.5 to 2), "),
        (310.4, 240.2, None, "310 rows (at least 240), "),
        (None, 240.2, None, "at least 240 rows, "),
        (310.4, None, None, "310 rows, "),
    ],
)
def test_the_interval_stands_beside_the_noise_scale(scale, low, high, text):
    assert noise_in_words(scale, 256, low=low, high=high).startswith(text)


@pytest.mark.parametrize(("low", "words"), [(30.0, "may be below it or above"), (3000.0, "well below")])
def test_a_noise_scale_of_which_only_the_lower_end_is_known(low, words):
    assert words in noise_in_words(None, 256, low=low)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.12345, "0.12"), (1.0, "1"), (99.6, "100"), (314.2, "310"), (994.9, "990"), (999.6, "1k"),
        (1234.5, "1.2k"), (31_420.0, "31k"), (999_999.0, "1M"), (2.54e6, "2.5M"), (1e12, "1e12"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_compact_numbers_are_short_and_carry(value, text):
    assert compact(value) == text
    assert len(compact(value)) <= 4


@pytest.mark.parametrize("scale", [None, math.nan, math.inf])
def test_unknown_noise_is_said_to_be_unknown(scale):
    assert noise_in_words(scale, 256).startswith("not estimated")


def test_no_noise_at_all_is_far_below_any_batch():
    assert rows(0.0) == "0 rows"
    assert "well above" in noise_in_words(0.0, 1)
