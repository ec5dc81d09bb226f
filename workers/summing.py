"""Adding up the gradients of a request's leaves: in which memory each sum grows, and its squared norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardsgd.model.layout import Flat, Layout
from shardsgd.model.sums import Adder, LeafGradient, Summand
from shardsgd.model.tree import Node, children


class Summation:
    """Gradient sums of the tree nodes that cover a request's leaves.

    Args:
        adder: of the job's layout.
        buffers: memory for what is added up on the way; where it does not suffice, more is put there, to be used again.
        layout: of the gradients.
        tops: the covering nodes.
        into: memory for a covering node's sum; None: one of the buffers.

    Attributes:
        norms: ‖sum‖² of every node so far.
    """

    def __init__(
        self,
        adder: Adder,
        buffers: list[Flat],
        layout: Layout,
        tops: Sequence[Node],
        into: Callable[[Node], Flat] | None,
    ) -> None:
        self.norms: dict[Node, float] = {}
        self._adder = adder
        self._buffers = buffers
        self._free = list(buffers)
        self._layout = layout
        self._tops = tops
        self._into = into

    def add(self, node: Node, left: Summand, right: Summand) -> Summand:
        """A node's sum: written over a summand that is a buffer, a covering node's to its own memory."""
        ours = [summand for summand in (left, right) if not isinstance(summand, LeafGradient)]
        given = self._into is not None and node in self._tops
        out = ours[0] if ours and not given else self._memory(node)
        noted = self._adder.add(left, right, out)
        self.norms[node] = noted.total
        for child, summand, norm in zip(children(node), (left, right), noted[:2], strict=True):
            if isinstance(summand, LeafGradient):
                self.norms[child] = norm
        self._free.extend(summand for summand in ours if summand is not out)
        return out

    def top(self, node: Node, total: Summand) -> Flat:
        """A covering node's sum in its memory, where a leaf's gradient is not yet."""
        if not isinstance(total, LeafGradient):
            return total
        out = self._memory(node)
        self.norms[node] = self._adder.copy(total, out)
        return out

    def _memory(self, node: Node) -> Flat:
        if self._into is not None and node in self._tops:
            return self._into(node)
        if not self._free:
            self._buffers.append(self._layout.zeros())
            return self._buffers[-1]
        return self._free.pop()
