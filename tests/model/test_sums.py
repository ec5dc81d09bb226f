"""Adding gradients: the same bytes and the same norms whoever adds, and whatever the summands lie in."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import (
    add_up,
    assignments,
    blocks_of,
    in_order,
    leaf_gradient,
    padding,
    tree_nodes,
    two_layers,
    wild_gradients,
)

from shardsgd.model.layout import BLOCK, Layout
from shardsgd.model.sums import Adder, LeafGradient, add_block, squared_norm
from shardsgd.model.tree import cover, reduce_node

# Blocks within an array, over several arrays, one for all; with and without a rest after their rows of 1,024.
BLOCKS = [48, 100, 512, 1030, BLOCK]
DTYPES = [np.float32, np.float64]


def leaves_of(layout, gradients):
    """`leaf` for `add_up`."""
    return lambda shard: leaf_gradient(layout, gradients[shard])


@pytest.mark.parametrize("dtype", DTYPES)
@given(assignment=assignments(), block=st.sampled_from(BLOCKS), seed=st.integers(0, 10**6))
def test_sums_and_norms_are_the_same_bytes_for_any_assignment(dtype, assignment, block, seed):
    shards, ranges = assignment
    with blocks_of(block):
        layout = two_layers(dtype)
        gradients = wild_gradients(layout, shards, seed)
        expected, alone = add_up(layout, leaves_of(layout, gradients), (0, shards))
        sums, norms = {}, {}
        for node in (node for start, stop in ranges for node in cover(start, stop, shards)):
            sums[node], below = add_up(layout, leaves_of(layout, gradients), node)
            norms |= below

        # The rest of the tree, whole and block by block.
        def whole(node, left, right):
            total = layout.zeros()
            norms[node] = Adder(layout).add(left, right, total).total
            return total

        def by_block(node, left, right):
            total = layout.zeros()
            assert norms[node] == in_order(add_block(left[span], right[span], total[span]) for span in layout.blocks)
            return total

        totals = [reduce_node((0, shards), sums.get, add) for add in (whole, by_block)]
    for total in totals:
        assert total.tobytes() == expected.tobytes()
        assert total.dtype == dtype
    assert norms == alone
    assert set(alone) == tree_nodes(0, shards)


@given(st.integers(1, 64), st.sampled_from(BLOCKS), st.integers(0, 10**6))
def test_every_norm_is_that_of_its_node(shards, block, seed):
    with blocks_of(block):
        layout = Layout.pack([("layer0.weight", (5, 7)), ("layer0.bias", (5,))], np.dtype(np.float64))
        gradients = np.random.default_rng(seed).normal(size=(shards, layout.length)) + 0.5
        gradients[:, padding(layout)] = 0
        root, norms = add_up(layout, leaves_of(layout, gradients), (0, shards))
    np.testing.assert_allclose(root, gradients.sum(axis=0), rtol=1e-12, atol=1e-12)
    assert set(norms) == tree_nodes(0, shards)
    for (start, stop), norm in norms.items():
        assert norm == pytest.approx(np.sum(gradients[start:stop].sum(axis=0) ** 2), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plain_left_to_right_sum_differs(dtype):
    """What the tests above would not notice if it did not: that the order matters for such data."""
    layout = two_layers(dtype)
    gradients = wild_gradients(layout, 8, seed=0)
    plain = functools.reduce(np.add, gradients)
    assert plain.tobytes() != add_up(layout, leaves_of(layout, gradients), (0, 8))[0].tobytes()


def test_subnormal_sums_are_not_flushed():
    layout = two_layers(np.float32)
    tiny = np.where(padding(layout), 0, np.finfo(np.float32).smallest_subnormal).astype(np.float32)
    total, _ = add_up(layout, leaves_of(layout, [tiny] * 3), (0, 3))
    assert np.all(total == 3 * tiny.astype(np.float64))
    assert add_block(tiny, tiny, tiny) == 0
    assert np.all(tiny[:5] == 2 * float(np.finfo(np.float32).smallest_subnormal))


@pytest.mark.parametrize("dtype", DTYPES)
@given(block=st.sampled_from(BLOCKS), seed=st.integers(0, 10**6), place=st.sampled_from(["new", "left", "right"]))
def test_what_a_summand_lies_in_does_not_matter(dtype, block, seed, place):
    """Leaf or buffer, left or right, into new memory or over a summand: one sum, one norm of it, one norm of each leaf."""
    with blocks_of(block):
        layout = two_layers(dtype)
        gradients = wild_gradients(layout, 2, seed)
        adder = Adder(layout)
        copies = [layout.zeros(), layout.zeros()]
        leaf_norms = [adder.copy(leaf_gradient(layout, flat), out) for flat, out in zip(gradients, copies, strict=True)]
        assert [copied.tobytes() for copied in copies] == [flat.tobytes() for flat in gradients]
        found = set()
        for of_leaf in [(False, False), (False, True), (True, False), (True, True)]:
            summands = [
                leaf_gradient(layout, flat) if leaf else flat.copy()
                for flat, leaf in zip(gradients, of_leaf, strict=True)
            ]
            out = layout.zeros()
            if place != "new" and isinstance(summands[place == "right"], np.ndarray):
                out = summands[place == "right"]
            noted = adder.add(*summands, out)
            assert list(noted[:2]) == [norm if leaf else 0 for norm, leaf in zip(leaf_norms, of_leaf, strict=True)]
            assert noted.total == squared_norm(out)
            assert not out[padding(layout)].any()
            found.add((out.tobytes(), noted.total))
            for summand, flat in zip(summands, gradients, strict=True):
                if isinstance(summand, LeafGradient):
                    assert summand.arrays[0].tobytes() == flat[layout.entries[0].span].tobytes()
                elif summand is not out:
                    assert summand.tobytes() == flat.tobytes()
    assert len(found) == 1
    assert found.pop()[0] == (gradients[0] + gradients[1]).tobytes()


@given(st.lists(st.integers(1, 90), min_size=1, max_size=9), st.integers(1, 120), st.integers(0, 10**6))
def test_blocks_may_cut_arrays_anywhere(sizes, block, seed):
    """Arrays of several blocks, blocks of several arrays, blocks that are padding and nothing else."""
    with blocks_of(block):
        layout = Layout.pack([(f"array{i}", (size,)) for i, size in enumerate(sizes)], np.dtype(np.float64))
        flats = np.random.default_rng(seed).normal(size=(2, layout.length))
        flats[:, padding(layout)] = 0
        adder, out, copied = Adder(layout), layout.zeros(), layout.zeros()
        noted = adder.add(*(leaf_gradient(layout, flat) for flat in flats), out)
        adder.copy(leaf_gradient(layout, flats[0]), copied)
    assert out.tobytes() == flats.sum(axis=0).tobytes()
    assert copied.tobytes() == flats[0].tobytes()
    expected = [*np.sum(flats**2, axis=1), np.sum(flats.sum(axis=0) ** 2)]
    assert noted == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layout_of_several_real_blocks(dtype):
    layout = two_layers(dtype, features=3000, units=50)
    assert 2 * BLOCK < layout.length < 3 * BLOCK
    gradients = wild_gradients(layout, 3, seed=1)
    total, norms = add_up(layout, leaves_of(layout, gradients), (0, 3))
    assert total.tobytes() == (gradients[0] + gradients[1] + gradients[2]).tobytes()
    assert norms[0, 3] == squared_norm(total) == in_order(squared_norm(total[span]) for span in layout.blocks)
    assert norms[2, 3] == pytest.approx(math.fsum(gradients[2].astype(np.float64) ** 2), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entry", range(4))
def test_what_is_not_finite_shows_in_every_norm_it_is_part_of(value, entry):
    """The step loop finds divergence by the root's."""
    with blocks_of(100):
        layout = two_layers(np.float32)
        gradients = wild_gradients(layout, 4, seed=2)
        gradients[1, layout.entries[entry].span.stop - 1] = value
        _, norms = add_up(layout, leaves_of(layout, gradients), (0, 4))
    infected = {node for node, norm in norms.items() if not math.isfinite(norm)}
    assert infected == {(1, 2), (0, 2), (0, 4)}


def test_infinities_of_both_signs_do_not_cancel():
    layout = two_layers(np.float32)
    gradients = np.zeros((2, layout.length), np.float32)
    gradients[:, 0] = np.inf, -np.inf
    assert math.isnan(add_up(layout, leaves_of(layout, gradients), (0, 2))[1][0, 2])


@pytest.mark.parametrize("block", BLOCKS)
def test_a_norm_that_float32_could_not_hold_is_right(block):
    """A single square overflows, or a row's sum of squares does, or only their sum over rows."""
    with blocks_of(block):
        for value in (1e38, 1.5e19, 2e18):
            layout = two_layers(np.float32)
            flat = np.where(padding(layout), 0, value).astype(np.float32)
            total, norms = add_up(layout, leaves_of(layout, [flat, flat]), (0, 2))
            assert np.isfinite(total).all()
            square = float(flat[0]) ** 2 * layout.parameters
            assert norms[0, 1] == norms[1, 2] == pytest.approx(square, rel=1e-5)
            assert norms[0, 2] == squared_norm(total) == pytest.approx(4 * square, rel=1e-5)
            assert add_block(flat, flat, layout.zeros()) == pytest.approx(4 * square, rel=1e-5)


def test_sums_that_overflow_show():
    layout = two_layers(np.float32)
    flat = np.where(padding(layout), 0, 3e38).astype(np.float32)
    _, norms = add_up(layout, leaves_of(layout, [flat, flat]), (0, 2))
    assert math.isfinite(norms[0, 1])
    assert norms[0, 2] == math.inf
    assert add_block(flat, flat, layout.zeros()) == math.inf


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
@given(size=st.sampled_from([0, 1, 16, 1023, 1024, 1025, 5000]), seed=st.integers(0, 10**6))
def test_squared_norm(dtype, tolerance, size, seed):
    flat = np.random.default_rng(seed).normal(size=size).astype(dtype)
    expected = math.fsum(float(x) ** 2 for x in flat)
    assert squared_norm(flat) == pytest.approx(expected, rel=tolerance)


def test_squared_norm_of_rows_that_float32_could_not_add():
    flat = np.zeros(5 * 1024, np.float32)
    flat[::1024] = 1.5e19
    assert squared_norm(flat) == pytest.approx(5 * 2.25e38, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 17, 1023, 1025, 4099])
def test_squared_norm_has_the_same_bits_at_any_alignment(dtype, size):
    values = np.random.default_rng(size).normal(size=size).astype(dtype)
    memory = np.zeros(size + 64, dtype)
    seen = set()
    for start in range(64 // np.dtype(dtype).itemsize):
        memory[start : start + size] = values
        seen.add(squared_norm(memory[start : start + size]))
    assert len(seen) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_squared_norm_shows_what_is_not_finite(value):
    for place in (0, 1024, 1099):
        flat = np.zeros(1100, np.float32)
        flat[place] = value
        assert not math.isfinite(squared_norm(flat))
