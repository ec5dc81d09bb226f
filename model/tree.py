"""The reduction tree: the one order in which the gradients of V leaves are added.

A node is a half-open range of leaves (start, stop). It splits after the largest power of two of leaves that leaves something
on the right, so for V a power of two the tree is balanced and complete. Addition of floats is not associative; adding along
one tree, whoever adds, is what makes the sum independent of the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Node = tuple[int, int]
T = TypeVar("T")

_NORM_BLOCK = 1024


def children(node: Node) -> tuple[Node, Node]:
    """The two halves of a node of at least two leaves."""
    start, stop = node
    middle = start + (1 << ((stop - start - 1).bit_length() - 1))
    return (start, middle), (middle, stop)


def cover(start: int, stop: int, shards: int) -> tuple[Node, ...]:
    """The fewest nodes of the tree over `shards` leaves that hold exactly the leaves start … stop − 1, in order.

    A worker given this range may add inside these nodes and nowhere else.
    """

    def within(node: Node) -> Iterator[Node]:
        if node[1] <= start or stop <= node[0]:
            return
        if start <= node[0] and node[1] <= stop:
            yield node
            return
        for child in children(node):
            yield from within(child)

    return tuple(within((0, shards)))


def subtree(node: Node) -> Iterator[Node]:
    """A node and every node below it, each before its children, left before right."""
    yield node
    if node[1] - node[0] > 1:
        for child in children(node):
            yield from subtree(child)


def reduce_node(node: Node, known: Callable[[Node], T | None], add: Callable[[Node, T, T], T]) -> T:
    """The value of a node: what is known of it, or else the sum of its children's values.

    Args:
        node: of the tree.
        known: the value of a node, None where it must be added up. Must know every leaf it is asked for.
        add: combines the values of a node's left and right child.

    Raises:
        KeyError: neither a leaf nor any node above it is known.
    """
    value = known(node)
    if value is not None:
        return value
    if node[1] - node[0] == 1:
        raise KeyError(node)
    left, right = children(node)
    return add(node, reduce_node(left, known, add), reduce_node(right, known, add))


def squared_norm(flat: NDArray[Any]) -> float:
    """‖flat‖²: products and sums of blocks in the buffer's dtype, the blocks' sums in float64 (all of it where that overflows).

    The same bits whatever BLAS and however many threads there are. Not finite exactly if the buffer is not, short of float64's
    own range.
    """
    whole = flat.size // _NORM_BLOCK * _NORM_BLOCK
    blocks = flat[:whole].reshape(-1, _NORM_BLOCK)
    rest = flat[whole:]
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.einsum("ij,ij->i", blocks, blocks).sum(dtype=np.float64) + np.einsum("i,i->", rest, rest)
        if not np.isfinite(total):
            total = np.square(flat, dtype=np.float64).sum()
    return float(total)


class GradientSums:
    """Adds gradient buffers along the tree and notes the squared norm of every node on the way.

    Attributes:
        norms: ‖Σ gradients‖² of every node seen or made so far.
    """

    def __init__(self, norms: Mapping[Node, float] | None = None) -> None:
        self.norms: dict[Node, float] = dict(norms or {})

    def leaf(self, node: Node, flat: NDArray[Any]) -> NDArray[Any]:
        """Notes a leaf's gradient and returns it."""
        self.norms[node] = squared_norm(flat)
        return flat

    def add(self, node: Node, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        """The node's sum. Written over `left` where that is allowed, else new memory.

        Always NumPy, in workers and in the coordinator: XLA may flush subnormal sums to zero.
        """
        # A job that diverges is found out by the root's norm, and reported once.
        with np.errstate(over="ignore", invalid="ignore"):
            total: NDArray[Any] = np.add(left, right, out=left if left.flags.writeable else None)
        self.norms[node] = squared_norm(total)
        return total
