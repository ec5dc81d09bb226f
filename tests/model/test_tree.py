"""The reduction tree: which sums there are, and who may make which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import assignments, leaf_ranges, tree_nodes

from shardsgd.model.tree import above, children, cover, reduce_node, subtree


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


@given(leaf_ranges())
def test_a_subtree_is_every_node_below_each_before_its_children(leaf_range):
    start, stop, _ = leaf_range
    nodes = list(subtree((start, stop)))
    assert sorted(nodes) == sorted(tree_nodes(start, stop))
    for node in nodes:
        if node[1] - node[0] > 1:
            left, right = children(node)
            assert nodes.index(node) < nodes.index(left) < nodes.index(right)


@given(assignments(), st.randoms())
def test_above_is_what_is_left_to_add_up(assignment, random):
    shards, ranges = assignment
    tops = [node for start, stop in ranges for node in cover(start, stop, shards)]
    left = above(tops, shards)
    below = {node for top in tops for node in tree_nodes(*top)}
    assert sorted(left) == sorted(tree_nodes(0, shards) - below)
    # Both ends of a wire name norms by their place in it.
    random.shuffle(tops)
    assert above(tops, shards) == left


def test_nothing_is_above_the_root():
    assert above([(0, 8)], 8) == ()
    assert above([(0, 1)], 1) == ()


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
