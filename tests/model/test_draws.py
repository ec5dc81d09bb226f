"""Batches drawn by themselves: the same for ever, in their range, every set of rows as likely as every other."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.sampling import drawn_rows

seeds = st.integers(0, 2**63 - 1)


@st.composite
def draws(draw):
    rows = draw(st.integers(1, 400))
    return draw(seeds), rows, draw(st.integers(1, rows)), draw(st.integers(0, 10**6))


@given(draws(), st.booleans())
def test_a_batch_has_b_rows_of_those_there_are_and_is_the_same_each_time(name, replacement):
    rows = drawn_rows(*name, replacement=replacement)
    assert rows.dtype == np.int64
    assert len(rows) == name[2]
    assert rows.min() >= 0
    assert rows.max() < name[1]
    np.testing.assert_array_equal(rows, drawn_rows(*name, replacement=replacement))


@given(draws())
def test_without_replacement_no_row_comes_twice(name):
    assert len(np.unique(drawn_rows(*name, replacement=False))) == name[2]


@given(seeds, st.integers(1, 300), st.integers(0, 99))
def test_all_rows_without_replacement_are_all_rows(seed, rows, repeat):
    np.testing.assert_array_equal(drawn_rows(seed, rows, rows, repeat, replacement=False), np.arange(rows))


@given(seeds, st.integers(4, 300))
def test_sizes_repeats_seeds_and_ways_to_draw_have_batches_of_their_own(seed, rows):
    named = itertools.product((seed, seed ^ 1), (rows // 2, rows // 2 - 1), (0, 1), (True, False))
    # Words, not rows: of few rows two batches may be equal by chance.
    many = 2**40
    batches = [drawn_rows(one, many, size, repeat, replacement=how).tobytes() for one, size, repeat, how in named]
    assert len(set(batches)) == len(batches)


@pytest.mark.parametrize(("rows", "batch"), [(5, 1), (5, 2), (5, 3), (6, 4), (4, 2)])
def test_without_replacement_every_set_is_as_likely(rows, batch):
    """χ² over all sets: on both sides of n/2, and at it."""
    sets = list(itertools.combinations(range(rows), batch))
    repeats = 400 * len(sets)
    found = Counter(tuple(sorted(drawn_rows(7, rows, batch, r, replacement=False))) for r in range(repeats))
    expected = repeats / len(sets)
    statistic = sum((found[one] - expected) ** 2 / expected for one in sets)
    assert found.keys() == set(sets)
    freedom = len(sets) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_with_replacement_every_pair_is_as_likely():
    rows, repeats = 5, 10_000
    found = Counter(tuple(drawn_rows(3, rows, 2, r, replacement=True)) for r in range(repeats))
    expected = repeats / rows**2
    statistic = sum((found[pair] - expected) ** 2 / expected for pair in itertools.product(range(rows), repeat=2))
    assert abs(statistic - 24) < 4 * 48**0.5


def test_the_rows_of_a_batch_are_pinned():
    """Other numbers would change a measurement that was published."""
    assert drawn_rows(0, 1000, 5, 3, replacement=True).tolist() == [484, 573, 429, 153, 60]
    assert drawn_rows(0, 1000, 5, 3, replacement=False).tolist() == [650, 938, 424, 688, 11]
    assert drawn_rows(0, 8, 6, 3, replacement=False).tolist() == [0, 2, 4, 5, 6, 7]
