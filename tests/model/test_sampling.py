"""Which rows a leaf holds: once an epoch, from a counter, the same words for ever."""

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.sampling import Sampling, Stream, fill_uniform, permutation, random_unit, random_words

BITS_CHANGED = (
    "the random numbers of a job changed (a new NumPy?): runs and checkpoints made before would not be reproduced; "
    "do not repin, find out why"
)


@st.composite
def samplings(draw, kind="shuffle"):
    rows = draw(st.integers(1, 200))
    batch = draw(st.integers(1, rows))
    shards = draw(st.integers(1, min(batch, 70)))
    return Sampling(draw(st.integers(0, 2**63 - 1)), rows, batch, shards, kind)


def dealt_row(sampling, leaf):
    """The dealt positions of a leaf's rows: row r of shard s is position r·V + s."""
    shards, rows = leaf
    assert shards.dtype == rows.dtype == np.int64
    assert np.all((shards >= 0) & (shards < sampling.shards))
    assert np.all((rows >= 0) & (rows < np.array([sampling.shard_rows(shard) for shard in shards], np.int64)))
    return rows * sampling.shards + shards


def step_leaves(sampling, step):
    return [sampling.leaf(shard, step) for shard in range(sampling.shards)]


@given(samplings(), st.integers(0, 10**6))
def test_shuffle_uses_every_row_once_in_every_epoch(sampling, first_epoch):
    for epoch in (first_epoch, first_epoch + 1):
        steps = range(epoch * sampling.steps_per_epoch, (epoch + 1) * sampling.steps_per_epoch)
        used = [dealt_row(sampling, leaf) for step in steps for leaf in step_leaves(sampling, step)]
        np.testing.assert_array_equal(np.sort(np.concatenate(used)), np.arange(sampling.rows))


@given(samplings(), st.integers(0, 10**6))
def test_shuffle_fills_every_step_but_the_last_of_an_epoch(sampling, epoch):
    sizes = []
    for step in range(epoch * sampling.steps_per_epoch, (epoch + 1) * sampling.steps_per_epoch):
        counts = [len(rows) for _, rows in step_leaves(sampling, step)]
        assert counts == [sampling.leaf_count(shard, step) for shard in range(sampling.shards)]
        assert max(counts) <= sampling.leaf_rows == np.ceil(sampling.batch / sampling.shards)
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == sampling.step_rows(step)
        sizes.append(sum(counts))
    assert all(size == sampling.batch for size in sizes[:-1])
    assert sum(sizes) == sampling.rows


@given(samplings())
def test_a_shuffled_leaf_holds_rows_of_its_own_shard(sampling):
    for shard, (shards, _) in enumerate(step_leaves(sampling, sampling.steps_per_epoch - 1)):
        assert np.all(shards == shard)


@given(samplings())
def test_shards_are_a_fair_deal(sampling):
    sizes = [sampling.shard_rows(shard) for shard in range(sampling.shards)]
    assert sum(sizes) == sampling.rows
    assert max(sizes) - min(sizes) <= 1
    assert sizes == [len(range(shard, sampling.rows, sampling.shards)) for shard in range(sampling.shards)]


@given(st.data(), st.sampled_from(["shuffle", "replacement"]))
def test_a_leaf_computed_alone_is_the_leaf_computed_in_sequence(data, kind):
    sampling = data.draw(samplings(kind))
    names = [(shard, step) for step in range(2 * sampling.steps_per_epoch) for shard in range(sampling.shards)][:300]
    in_sequence = {name: sampling.leaf(*name) for name in names}
    for name in data.draw(st.permutations(names))[:20]:
        np.testing.assert_array_equal(replace(sampling).leaf(*name), in_sequence[name])


def test_a_leaf_does_not_depend_on_what_a_caller_did_with_an_earlier_one():
    """Orders are cached: a caller that can write into one would change what the job computes."""
    sampling = Sampling(seed=3, rows=40, batch=10, shards=2, kind="shuffle")
    rows = sampling.leaf(1, 2)[1]
    expected = rows.copy()
    if rows.flags.writeable:
        rows[:] = 0
    np.testing.assert_array_equal(sampling.leaf(1, 2)[1], expected)


def test_orders_of_past_epochs_do_not_pile_up():
    """A worker's memory must not grow with the epochs it has seen."""
    sampling = Sampling(seed=5, rows=20_000, batch=20_000, shards=4, kind="shuffle")
    tracemalloc.start()
    try:
        for epoch in range(100):
            step_leaves(sampling, epoch)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    epochs_kept = kept / (8 * sampling.rows)
    assert epochs_kept < 10, f"{epochs_kept:.0f} epochs of row orders are still in memory"


@pytest.mark.parametrize("kind", ["shuffle", "replacement"])
def test_epochs_shards_and_seeds_give_different_orders(kind):
    sampling = Sampling(seed=0, rows=400, batch=400, shards=4, kind=kind)
    seeds = (0, 1, 2**62, 2**63 - 1)
    drawn = {
        replace(sampling, seed=seed).leaf(shard, step)[1].tobytes()
        for seed in seeds
        for shard in range(4)
        for step in range(8)
    }
    assert len(drawn) == len(seeds) * 4 * 8


def test_a_shuffled_order_is_uniform():
    """Chi-square over the first row of 6,000 orders of 6 rows: 5 degrees of freedom, 99.99% quantile 25.7."""
    first = [Sampling(seed, rows=6, batch=6, shards=1, kind="shuffle").leaf(0, 0)[1][0] for seed in range(6000)]
    counts = np.bincount(first, minlength=6)
    assert ((counts - 1000) ** 2 / 1000).sum() < 25.7


@given(samplings("replacement"), st.integers(0, 10**9))
def test_replacement_draws_valid_rows_in_full_steps(sampling, step):
    leaves = step_leaves(sampling, step)
    counts = [len(dealt_row(sampling, leaf)) for leaf in leaves]
    assert counts == [sampling.leaf_count(shard, step) for shard in range(sampling.shards)]
    assert max(counts) <= sampling.leaf_rows
    assert sum(counts) == sampling.step_rows(step) == sampling.batch


def test_replacement_draws_all_rows_alike_in_every_leaf():
    """Chi-square, 102 degrees of freedom per leaf: mean 102, standard deviation 14.3; the margin is 5 of them."""
    sampling = Sampling(seed=11, rows=103, batch=100, shards=4, kind="replacement")
    for shard in range(4):
        drawn = np.concatenate([dealt_row(sampling, sampling.leaf(shard, step)) for step in range(400)])
        expected = len(drawn) / 103
        chi_square = ((np.bincount(drawn, minlength=103) - expected) ** 2 / expected).sum()
        assert abs(chi_square - 102) < 5 * np.sqrt(2 * 102)


def philox4x64(key, counter):
    """Philox4x64-10 by the paper (Salmon et al. 2011, section 4.3), in integers of any size."""
    k, c, low = list(key), list(counter), 2**64 - 1
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k[0], p1 & low, (p0 >> 64) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + 0x9E3779B97F4A7C15) & low, (k[1] + 0xBB67AE8584CAA73B) & low]
    return c


@given(
    st.integers(0, 2**63 - 1),
    st.sampled_from(Stream),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63),
    st.integers(0, 9),
)
def test_words_are_philox_of_seed_stream_lane_and_counter(seed, stream, lane, counter, count):
    """NumPy steps the counter before the first block."""
    blocks = [philox4x64((seed, stream * 2**32 + lane), (1 + block, 0, 0, counter)) for block in range(3)]
    words = random_words(seed, stream, lane, counter, count)
    assert words.dtype == np.uint64
    assert words.tolist() == list(itertools.chain(*blocks))[:count], BITS_CHANGED


def test_pinned_words():
    words = random_words(20_240_229, Stream.SHUFFLE, 3, 7, 5)
    assert [f"{int(word):016x}" for word in words] == [
        "395ec199793b83f6",
        "da5b10f5798201bd",
        "6f0d76a660062ac0",
        "19334fc95b27eb35",
        "042a31be40b500d2",
    ], BITS_CHANGED


def test_pinned_permutation():
    assert permutation(1, Stream.DEAL, 0, 0, 12).tolist() == [10, 2, 8, 11, 0, 9, 4, 7, 3, 1, 5, 6], BITS_CHANGED


def test_pinned_leaves():
    shuffled = Sampling(seed=42, rows=100, batch=32, shards=4, kind="shuffle")
    assert shuffled.leaf(2, 5)[1].tolist() == [4, 19, 24, 22, 1, 16, 8, 17], BITS_CHANGED
    drawn = replace(shuffled, kind="replacement").leaf(2, 5)
    assert np.stack(drawn).tolist() == [[0, 2, 1, 1, 2, 0, 0, 3], [13, 24, 24, 10, 2, 14, 16, 21]], BITS_CHANGED


def test_stream_numbers_are_pinned():
    assert {stream.name: int(stream) for stream in Stream} == {
        "SPLIT": 1, "DEAL": 2, "SHUFFLE": 3, "REPLACEMENT": 4, "INITIALIZE": 5, "SYNTHETIC": 6,
        "DRAWS": 7, "DISTINCT_DRAWS": 8,
    }, BITS_CHANGED  # fmt: skip


@given(st.integers(0, 2**63 - 1), st.integers(0, 300))
def test_units_are_the_top_53_bits_of_the_words(seed, count):
    unit = random_unit(seed, Stream.SYNTHETIC, 1, 2, count)
    assert np.all((unit >= 0) & (unit < 1))
    words = random_words(seed, Stream.SYNTHETIC, 1, 2, count).tolist()
    assert [int(u) for u in unit * 2.0**53] == [word >> 11 for word in words]


@given(st.integers(0, 2**63 - 1), st.integers(0, 300))
def test_a_permutation_is_one(seed, count):
    assert sorted(permutation(seed, Stream.SPLIT, 0, 0, count)) == list(range(count))


def test_the_largest_unit_never_draws_a_row_too_many():
    for rows in (1, 3, 7, 2**20 - 1, 2**31 + 1, 2**40 + 1):
        assert int((1 - 2.0**-53) * rows) == rows - 1


def test_filling_by_pieces_is_filling_at_once(monkeypatch):
    monkeypatch.setattr("shardsgd.model.sampling._PIECE", 7)
    out = np.zeros(40)
    fill_uniform(out, 0.3, 5, Stream.INITIALIZE, 2, 0)
    expected = (2 * random_unit(5, Stream.INITIALIZE, 2, 0, 40) - 1) * 0.3
    assert out.tobytes() == expected.tobytes()
    assert np.ptp(out) > 0.5


@pytest.mark.parametrize("kind", ["shuffle", "replacement"])
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(0, 50))
def test_the_counts_of_all_leaves_are_those_of_each(kind, rows, batch, shards, step):
    batch = min(batch, rows)
    sampling = Sampling(0, rows, batch, min(shards, batch), kind)
    counts = sampling.leaf_counts(step)
    assert counts == [sampling.leaf_count(shard, step) for shard in range(sampling.shards)]
    assert sum(counts) == sampling.step_rows(step)
