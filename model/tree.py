"""The reduction tree: the one order in which the gradients of V leaves are added.

A node is a half-open range of leaves (start, stop). It splits after the largest power of two of leaves that leaves something
on the right, so for V a power of two the tree is balanced and complete. Addition of floats is not associative; adding along
one tree, whoever adds, is what makes the sum independent of the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import TypeVar

Node = tuple[int, int]
T = TypeVar("T")


def children(node: Node) -> tuple[Node, Node]:
    """The two halves of a node of at least two leaves."""
    start, stop = node
    middle = start + (1 << ((stop - start - 1).bit_length() - 1))
    return (start, middle), (middle, stop)


@lru_cache(maxsize=1024)
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


@lru_cache(maxsize=1024)
def subtree(node: Node) -> tuple[Node, ...]:
    """A node and every node below it, each before its children, left before right."""
    if node[1] - node[0] == 1:
        return (node,)
    left, right = children(node)
    return (node, *subtree(left), *subtree(right))


def above(tops: Collection[Node], shards: int) -> tuple[Node, ...]:
    """The nodes that are left to add up when the sums of `tops`, which cover all leaves, are known."""
    return _above(frozenset(tops), shards)


@lru_cache(maxsize=1024)
def _above(tops: frozenset[Node], shards: int) -> tuple[Node, ...]:
    known = {node for top in tops for node in subtree(top)}
    return tuple(node for node in subtree((0, shards)) if node not in known)


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
