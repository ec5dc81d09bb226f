"""Reduction trees, gradients for their leaves, and a worker's way of adding these up."""

import functools
import operator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import strategies as st

from shardsgd.model import layout as layout_module
from shardsgd.model.layout import Layout
from shardsgd.model.sums import Adder, LeafGradient
from shardsgd.model.tree import children, reduce_node


@contextmanager
def blocks_of(elements):
    """Within it, layouts that are made and norms that are taken have such blocks, so that small buffers have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "BLOCK", elements)
        yield


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
def assignments(draw, most=64):
    """V leaves and the ranges in which they are shared out; an empty one is a worker without leaves."""
    shards = draw(st.integers(1, most))
    cuts = sorted(draw(st.lists(st.integers(0, shards), max_size=9)))
    return shards, list(zip([0, *cuts], [*cuts, shards], strict=True))


def two_layers(dtype, features=33, units=17):
    """A layout of two weights and two biases; 1,100 parameters unless asked otherwise, and padding after each of them."""
    shapes = [
        ("layer0.weight", (features, units)),
        ("layer0.bias", (units,)),
        ("layer1.weight", (units, 29)),
        ("layer1.bias", (29,)),
    ]
    return Layout.pack(shapes, np.dtype(dtype))


def padding(layout):
    """The elements of a buffer that belong to no array."""
    free = np.ones(layout.length, bool)
    for entry in layout.entries:
        free[entry.span] = False
    return free


def wild_gradients(layout, leaves, seed):
    """Flat gradients over the whole range of their dtype, subnormals included, with zero padding; the sums stay finite."""
    dtype, shape = layout.dtype, (leaves, layout.length)
    random = np.random.default_rng(seed)
    low, high = (-44.5, 15) if dtype == np.float32 else (-322, 150)
    with np.errstate(under="ignore"):
        values = 10.0 ** random.uniform(low, high, shape) * random.choice([-1, 1], shape)
        values[:, ::3] = random.choice([-1, 1], values[:, ::3].shape) * np.exp(random.normal(size=values[:, ::3].shape))
        gradients = values.astype(dtype)
    gradients[:, padding(layout)] = 0
    assert np.any((gradients != 0) & (np.abs(gradients) < np.finfo(dtype).tiny))
    return gradients


def in_order(numbers):
    """Their sum, one addition after another; since Python 3.12 `sum` of floats is something else."""
    return functools.reduce(operator.add, numbers, 0.0)


def leaf_gradient(layout, flat):
    """A flat gradient as the leaf program leaves it, read-only."""
    arrays = tuple(flat[entry.span].copy() for entry in layout.entries)
    for array in arrays:
        array.flags.writeable = False
    return LeafGradient(arrays)


def add_up(layout, leaf, node):
    """A node's sum as a worker makes it, and ‖sum‖² of it and of every node below; `leaf(shard)` gives a `LeafGradient`."""
    adder, norms = Adder(layout), {}

    def known(node):
        return leaf(node[0]) if node[1] - node[0] == 1 else None

    def add(node, left, right):
        out = layout.zeros()
        noted = adder.add(left, right, out)
        norms[node] = noted.total
        for child, norm in zip(children(node), noted[:2], strict=True):
            norms.setdefault(child, norm)
        return out

    total = reduce_node(node, known, add)
    if isinstance(total, LeafGradient):
        copied = layout.zeros()
        norms[node] = adder.copy(total, copied)
        return copied, norms
    return total, norms
