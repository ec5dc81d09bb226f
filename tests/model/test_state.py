"""Updating blocks of the training state: independent NumPy's numbers, and the same bytes whoever updates which."""

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import add_up, assignments, blocks_of, in_order, leaf_gradient, padding, wild_gradients

from shardsgd.model.layout import BLOCK
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import Momentum, Sgd, StateBuffers
from shardsgd.model.problem import Problem
from shardsgd.model.regularizer import Regularizer
from shardsgd.model.sampling import Sampling
from shardsgd.model.state import BlockUpdates, Updater
from shardsgd.model.tree import above, cover

RATES = [0.3, 0.2, 0.2, 0.1, 0.4, 0.05, 0.5, 0.01, 0.3, 0.07]
OPTIMIZERS = {"sgd": Sgd(), "momentum": Momentum(0.9)}
# Within an array, over several, one for all: weights and biases of the network begin and end everywhere in the first two.
BLOCKS = [10, 70, BLOCK]
DTYPES = [np.float32, np.float64]
ROOT = (0, 1)


def problem(*, kind="momentum", l1=0.0, l2=0.0, dtype=np.float64, shards=1):
    precision = np.dtype(dtype).name
    sampling = Sampling(0, 64, 64, shards, "shuffle")
    regularizer = Regularizer(l1, l2)
    return Problem(
        Network(9, (7,), 5, "tanh"), "softmax_cross_entropy", sampling, precision, 0, OPTIMIZERS[kind], regularizer
    )


def random_flat(layout, seed):
    flat = np.random.default_rng(seed).normal(size=layout.length).astype(layout.dtype)
    flat[padding(layout)] = 0
    return flat


def random_state(updater, layout, seed):
    """A state that may not be written."""
    flats = [random_flat(layout, seed + number) for number in range(1 + updater.slots)]
    for flat in flats:
        flat.flags.writeable = False
    return StateBuffers(flats[0], tuple(flats[1:]))


def junk_state(updater):
    """Memory with something of before in it."""
    state = updater.buffers()
    for flat in (state.theta, *state.slots):
        flat[...] = np.nan
    return state


def update_all(updater, sums, before, rows=7, rate=0.3):
    """The state after, from all blocks at once, and the figures."""
    after = junk_state(updater)
    return after, updater.update(range(updater.blocks), sums, rows, rate, before, after)


def by_arrays(layout, squared_norms):
    """Of each array, the sum over its parts in the blocks."""
    owners = [piece.entry for pieces in layout.pieces for piece in pieces]
    assert len(owners) == len(squared_norms)
    return [sum(squared_norms[np.array(owners) == number]) for number in range(len(layout.entries))]


def in_bytes(arrays):
    return [array.tobytes() for array in arrays]


def weights_of(layout):
    """Which elements of a buffer are weights."""
    weights = np.zeros(layout.length, bool)
    for entry in layout.entries:
        weights[entry.span] = entry.name.endswith("weight")
    return weights


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("l1", "l2"), [(0, 0), (0.03, 0), (0, 0.2), (0.03, 0.2)])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-5)])
def test_ten_steps(kind, l1, l2, dtype, tolerance, block):
    with blocks_of(block):
        spec = problem(kind=kind, l1=l1, l2=l2, dtype=dtype)
        layout, updater = spec.layout, Updater(spec)
        assert updater.blocks == math.ceil(layout.length / block)
        weights, free = weights_of(layout), padding(layout)
        states = [updater.buffers(), updater.buffers()]
        states[0].theta[:] = random_flat(layout, 0)
        expected, delta = states[0].theta.astype(np.float64), np.zeros(layout.length)
        decay = 0.9 if kind == "momentum" else 0
        for t, rate in enumerate(RATES):
            gradient_sum, rows = 5 * random_flat(layout, 100 + t), 7 + t
            before, after = states[t % 2], states[1 - t % 2]
            made = updater.update(range(updater.blocks), {ROOT: gradient_sum}, rows, rate, before, after)

            gradient = gradient_sum.astype(np.float64) / rows
            regularizer = l1 * np.abs(expected[weights]).sum() + l2 * np.sum(expected[weights] ** 2) / 2
            gradient[weights] += l1 * np.sign(expected[weights]) + l2 * expected[weights]
            delta = decay * delta - rate * gradient
            expected = expected + delta
            np.testing.assert_allclose(after.theta, expected, rtol=tolerance, atol=tolerance)
            for slot in after.slots:
                np.testing.assert_allclose(slot, delta, rtol=tolerance, atol=tolerance)
            assert sum(made.squared_norms) == pytest.approx(np.sum(gradient**2), rel=tolerance)
            by_array = by_arrays(layout, made.squared_norms)
            assert by_array == pytest.approx([np.sum(gradient[e.span] ** 2) for e in layout.entries], rel=tolerance)
            assert sum(made.regularizer) == pytest.approx(regularizer, rel=tolerance)
            assert made.finite.all()
            assert made.norms.shape == (0, updater.blocks)
            assert after.theta.dtype == dtype
            assert not any(flat[free].any() for flat in (after.theta, *after.slots))


@st.composite
def shares(draw):
    """A share-out for any number of blocks: where it is cut (in parts of the whole), and an order of the parts."""
    cuts = draw(st.lists(st.floats(0, 1), max_size=6))
    return sorted(cuts), draw(st.randoms())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
@given(
    share=shares(),
    block=st.sampled_from(BLOCKS),
    l1=st.sampled_from([0, 0.03]),
    l2=st.sampled_from([0, 0.2]),
    shards=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)
def test_any_blocks_in_any_order_give_the_same_bytes_and_figures(kind, dtype, share, block, l1, l2, shards, seed):
    with blocks_of(block):
        spec = problem(kind=kind, l1=l1, l2=l2, dtype=dtype, shards=shards)
        updater = Updater(spec)
        before = random_state(updater, spec.layout, seed)
        # Of single leaves, so that all of the tree is still to be added up.
        sums = {(s, s + 1): random_flat(spec.layout, seed + 10 + s) for s in range(shards)}
        whole, expected = update_all(updater, sums, before)

        fractions, random = share
        cuts = [0, *(round(fraction * updater.blocks) for fraction in fractions), updater.blocks]
        ranges = [range(*ends) for ends in itertools.pairwise(cuts)]
        random.shuffle(ranges)
        parts, after = {}, junk_state(updater)
        for number, blocks in enumerate(ranges):
            worker = updater if number % 2 else Updater(spec)
            made = worker.update(blocks, sums, 7, 0.3, before, after)
            parts[blocks.start, blocks.stop] = made
    assert in_bytes([after.theta, *after.slots]) == in_bytes([whole.theta, *whole.slots])
    fields = zip(*(parts[ends] for ends in sorted(parts)), strict=True)
    together = BlockUpdates(*(np.concatenate(arrays, axis=-1) for arrays in fields))
    assert in_bytes(together) == in_bytes(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@given(assignment=assignments(most=16), block=st.sampled_from(BLOCKS), seed=st.integers(0, 10**6))
def test_any_number_of_workers_sums_give_the_same_bytes_and_norms(dtype, assignment, block, seed):
    shards, ranges = assignment
    with blocks_of(block):
        spec = problem(l1=0.03, l2=0.2, dtype=dtype, shards=shards)
        layout, updater = spec.layout, Updater(spec)
        gradients = wild_gradients(layout, shards, seed)
        before = random_state(updater, layout, seed)

        def leaf(shard):
            return leaf_gradient(layout, gradients[shard])

        root, norms_alone = add_up(layout, leaf, (0, shards))
        alone, expected = update_all(updater, {(0, shards): root}, before)
        sums, norms = {}, {}
        for node in (node for start, stop in ranges for node in cover(start, stop, shards)):
            sums[node], below = add_up(layout, leaf, node)
            norms |= below
        for total in sums.values():
            total.flags.writeable = False
        after, made = update_all(updater, sums, before)
    assert in_bytes([after.theta, *after.slots]) == in_bytes([alone.theta, *alone.slots])
    assert in_bytes(made[1:]) == in_bytes(expected[1:])
    # Each node's shares, added in the blocks' order, are its norm as a worker notes it.
    added = [in_order(share) for share in made.norms.tolist()]
    assert norms | dict(zip(above(sums, shards), added, strict=True)) == norms_alone


def test_only_the_blocks_asked_for_are_written_and_nothing_that_is_read():
    with blocks_of(10):
        spec = problem(l1=0.1, l2=0.1, shards=3)
        updater = Updater(spec)
        before = random_state(updater, spec.layout, 0)
        sums = {node: random_flat(spec.layout, node[0]) for node in [(0, 2), (2, 3)]}
        read = in_bytes([before.theta, *before.slots, *sums.values()])
        after = junk_state(updater)
        updater.update(range(3, 5), sums, 7, 0.3, before, after)
    assert in_bytes([before.theta, *before.slots, *sums.values()]) == read
    for flat in (after.theta, *after.slots):
        assert np.isfinite(flat[30:50]).all()
        assert np.isnan(flat[:30]).all()
        assert np.isnan(flat[50:]).all()


def test_buffers_are_zeros_of_their_own():
    for kind, slots in (("sgd", 0), ("momentum", 1)):
        updater = Updater(problem(kind=kind, dtype=np.float32))
        states = updater.buffers(), updater.buffers()
        flats = [flat for state in states for flat in (state.theta, *state.slots)]
        assert len(flats) == 2 * (1 + slots) == 2 * (1 + updater.slots)
        for number, flat in enumerate(flats):
            assert not flat.any()
            flat[...] = number
        assert [flat[0] for flat in flats] == list(range(len(flats)))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("l1", "l2"), [(0, 0), (0, 0.3), (0.2, 0), (0.2, 0.3)])
def test_the_regularizer_is_its_formula_and_the_update_uses_its_gradient(l1, l2, block):
    with blocks_of(block):
        spec = problem(kind="sgd", l1=l1, l2=l2)
        layout, updater = spec.layout, Updater(spec)
        before = random_state(updater, layout, 4)

        def formula(theta):
            weights = [
                theta[entry.span] for entry in layout.entries if entry.name in ("layer0.weight", "layer1.weight")
            ]
            return sum(l1 * jnp.sum(jnp.abs(w)) + l2 / 2 * jnp.vdot(w, w) for w in weights)

        after, made = update_all(updater, {ROOT: layout.zeros()}, before, rows=1, rate=1.0)
        assert updater.regularizer(before.theta) == pytest.approx(float(formula(before.theta)), rel=1e-13)
        assert sum(made.regularizer) == pytest.approx(updater.regularizer(before.theta), rel=1e-13)
    gradient = jax.grad(formula)(before.theta)
    np.testing.assert_allclose(before.theta - after.theta, gradient, rtol=1e-12, atol=1e-15)


def test_the_regularizer_has_the_bits_of_the_updates_shares():
    with blocks_of(70):
        deep = replace(problem(l1=0.2, l2=0.3), network=Network(9, (3, 3, 3, 3, 3, 3), 5, "tanh"))
        updater, sums = Updater(deep), {ROOT: deep.layout.zeros()}
        for seed in range(20):
            before = random_state(updater, deep.layout, seed)
            _, made = update_all(updater, sums, before)
            assert updater.regularizer(before.theta) == in_order(made.regularizer.tolist())


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_shows_in_its_block(kind, bad):
    with blocks_of(48):
        spec = problem(kind=kind, dtype=np.float32)
        layout, updater = spec.layout, Updater(spec)
        place = layout.entries[-1].offset
        gradient = layout.zeros()
        gradient[place] = bad
        _, made = update_all(updater, {ROOT: gradient}, random_state(updater, layout, 0))
    assert made.finite.tolist() == [number != place // 48 for number in range(updater.blocks)]
    assert np.isfinite(by_arrays(layout, made.squared_norms)).tolist() == [True] * (len(layout.entries) - 1) + [False]


def test_an_update_that_overflows_shows():
    spec = problem(kind="sgd", dtype=np.float32)
    updater = Updater(spec)
    before = random_state(updater, spec.layout, 0)
    gradient = np.full(spec.layout.length, 1e30, np.float32)
    assert update_all(updater, {ROOT: gradient}, before, rows=1, rate=1.0)[1].finite.all()
    assert not update_all(updater, {ROOT: gradient}, before, rows=1, rate=1e9)[1].finite.any()


@pytest.mark.parametrize(("dtype", "huge"), [(np.float32, 3e38), (np.float64, 1e300)])
def test_what_is_finite_shows_as_finite_even_where_its_norm_is_not(dtype, huge):
    spec = problem(kind="sgd", dtype=dtype)
    updater = Updater(spec)
    gradient = np.full(spec.layout.length, huge, dtype)
    _, made = update_all(updater, {ROOT: gradient}, random_state(updater, spec.layout, 0), rows=1, rate=1.0)
    assert made.finite.all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_that_overflow_show_in_the_norms_of_the_nodes_above(dtype):
    spec = problem(dtype=dtype, shards=3)
    updater = Updater(spec)
    sums = {(s, s + 1): np.full(spec.layout.length, 0.9 * np.finfo(dtype).max, dtype) for s in range(3)}
    _, made = update_all(updater, sums, random_state(updater, spec.layout, 0))
    assert made.norms.tolist() == [[math.inf], [math.inf]]
    assert not made.finite.any()
