"""The reduction tree: the same bytes whoever adds."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.model.tree import GradientSums, children, cover, reduce_node, squared_norm


def tree_nodes(start, stop):
    """Every node of a tree by the rule in words: split after the largest power of two that leaves something."""
    nodes = {(start, stop)}
    if stop - start > 1:
        middle = start + max(2**k for k in range(20) if 2**k < stop - start)
        nodes |= tree_nodes(start, middle) | tree_nodes(middle, stop)
    return nodes


@st.composite
def leaf_ranges(draw):
    shards = draw(st.integers(1, 64))
    start = draw(st.integers(0, shards - 1))
    return start, draw(st.integers(start + 1, shards)), shards


@st.composite
def assignments(draw):
    """V leaves and the cut points at which they are shared out; a cut point twice is a worker without leaves."""
    shards = draw(st.integers(1, 64))
    cuts = sorted(draw(st.lists(st.integers(0, shards), max_size=9)))
    return shards, list(zip([0, *cuts], [*cuts, shards], strict=True))


def wild_gradients(shards, dtype, seed, size=1100):
    """Gradients over the whole range of a dtype, subnormals included; the sums stay finite."""
    random = np.random.default_rng(seed)
    low, high = (-44.5, 15) if dtype == np.float32 else (-322, 150)
    with np.errstate(under="ignore"):
        values = 10.0 ** random.uniform(low, high, (shards, size)) * random.choice([-1, 1], (shards, size))
        values[:, ::3] = random.choice([-1, 1], values[:, ::3].shape) * np.exp(random.normal(size=values[:, ::3].shape))
        gradients = values.astype(dtype)
    assert np.any((gradients != 0) & (np.abs(gradients) < np.finfo(dtype).tiny))
    return gradients


def add_up(node, gradients, tree):
    """A node's sum as a worker makes it; the leaves may be written over."""

    def leaf(node):
        return tree.leaf(node, gradients[node[0]].copy()) if node[1] - node[0] == 1 else None

    return reduce_node(node, leaf, tree.add)


@given(st.integers(2, 5000), st.integers(0, 100))
def test_children_split_after_the_largest_power_of_two_that_leaves_something(size, start):
    (left, middle), (also_middle, right) = children((start, start + size))
    assert (left, right, middle) == (start, start + size, also_middle)
    first = middle - start
    assert first & (first - 1) == 0
    assert first < size <= 2 * first


@given(leaf_ranges())
def test_cover_holds_exactly_the_range_in_the_fewest_nodes(leaf_range):
    start, stop, shards = leaf_range
    all_nodes = tree_nodes(0, shards)
    nodes = cover(start, stop, shards)
    assert [leaf for node in nodes for leaf in range(*node)] == list(range(start, stop))
    assert set(nodes) <= all_nodes
    # Nodes of a tree are nested or disjoint, so the fewest are those that lie in no larger node within the range.
    within = [node for node in all_nodes if start <= node[0] and node[1] <= stop]
    largest = [n for n in within if not any(n != m and m[0] <= n[0] and n[1] <= m[1] for m in within)]
    assert sorted(nodes) == sorted(largest)


def test_cover_of_nothing_is_nothing():
    assert cover(3, 3, 8) == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(assignment=assignments(), seed=st.integers(0, 10**6))
def test_sums_and_norms_are_the_same_bytes_for_any_assignment(dtype, assignment, seed):
    shards, ranges = assignment
    gradients = wild_gradients(shards, dtype, seed)
    alone = GradientSums()
    expected = add_up((0, shards), gradients, alone)

    known, norms = {}, {}
    for start, stop in ranges:
        worker = GradientSums()
        for node in cover(start, stop, shards):
            known[node] = add_up(node, gradients, worker)
        norms |= worker.norms
    coordinator = GradientSums(norms)
    total = reduce_node((0, shards), known.get, coordinator.add)

    assert total.tobytes() == expected.tobytes()
    assert total.dtype == dtype
    assert coordinator.norms == alone.norms
    assert set(alone.norms) == tree_nodes(0, shards)


@given(st.integers(1, 64), st.integers(0, 10**6))
def test_every_norm_is_that_of_its_node(shards, seed):
    gradients = np.random.default_rng(seed).normal(size=(shards, 40)) + 0.5
    tree = GradientSums()
    root = add_up((0, shards), gradients, tree)
    np.testing.assert_allclose(root, gradients.sum(axis=0), rtol=1e-12, atol=1e-12)
    for (start, stop), norm in tree.norms.items():
        assert norm == pytest.approx(np.sum(gradients[start:stop].sum(axis=0) ** 2), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_plain_left_to_right_sum_differs(dtype):
    """What the tests above would not notice if it did not: that the order matters for such data."""
    gradients = wild_gradients(8, dtype, seed=0)
    plain = functools.reduce(np.add, gradients)
    assert plain.tobytes() != add_up((0, 8), gradients, GradientSums()).tobytes()


def test_subnormal_sums_are_not_flushed():
    tiny = np.full(20, np.finfo(np.float32).smallest_subnormal)
    assert np.all(add_up((0, 3), [tiny, tiny, tiny], GradientSums()) == 3 * float(tiny[0]))


@given(leaf_ranges(), st.data())
def test_a_missing_leaf_is_an_error(leaf_range, data):
    start, stop, shards = leaf_range
    missing = data.draw(st.integers(start, stop - 1))
    known = {(leaf, leaf + 1): leaf for leaf in range(shards) if leaf != missing}
    with pytest.raises(KeyError, match=rf"\({missing}, {missing + 1}\)"):
        reduce_node((0, shards), known.get, lambda _node, left, right: left + right)


def test_what_is_known_of_a_node_hides_its_leaves():
    known = {(0, 2): 100, (2, 3): 1}
    assert reduce_node((0, 3), known.get, lambda _node, left, right: left + right) == 101


def test_add_writes_over_left_only_where_allowed():
    left, right = np.ones(5), np.full(5, 2.0)
    tree = GradientSums()
    assert tree.add((0, 2), left, right) is left
    assert np.all(left == 3)
    assert np.all(right == 2)

    left.flags.writeable = False
    total = tree.add((0, 3), left, right)
    assert not np.shares_memory(total, left)
    assert np.all(left == 3)
    assert np.all(total == 5)
    assert tree.norms == {(0, 2): 45.0, (0, 3): 125.0}


def test_a_leaf_is_noted_and_handed_through():
    tree = GradientSums({(7, 8): 1.5})
    flat = np.array([3.0, 4.0])
    assert tree.leaf((0, 1), flat) is flat
    assert tree.norms == {(7, 8): 1.5, (0, 1): 25.0}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
@given(size=st.sampled_from([0, 1, 16, 1023, 1024, 1025, 5000]), seed=st.integers(0, 10**6))
def test_squared_norm(dtype, tolerance, size, seed):
    flat = np.random.default_rng(seed).normal(size=size).astype(dtype)
    expected = math.fsum(float(x) ** 2 for x in flat)
    assert squared_norm(flat) == pytest.approx(expected, rel=tolerance)


def test_squared_norm_of_blocks_that_float32_could_not_add():
    flat = np.zeros(5 * 1024, np.float32)
    flat[::1024] = 1.5e19
    assert squared_norm(flat) == pytest.approx(5 * 2.25e38, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
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
    """The step loop finds divergence by it."""
    for place in (0, 1024, 1099):
        flat = np.zeros(1100, np.float32)
        flat[place] = value
        assert not math.isfinite(squared_norm(flat))
