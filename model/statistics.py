"""What the leaves of a step say about the variance of gradients, at no extra gradient pass.

Sources: MATH.md "Stochastic gradients"; McCandlish et al. 2018 (arXiv 1812.06162), appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shardsgd.model.tree import Node, children

# Memory of the smoothed tr Σ and |G|²: about the last 100 steps.
_DECAY = 0.99


@dataclass(frozen=True)
class StepNoise:
    """Unbiased estimates from one step.

    Attributes:
        trace: of tr Σ, the summed variance of a single row's gradient.
        norm_squared: of |G|², the squared norm of the gradient of the population that the rows came from; may be negative.
            (With "shuffle" its mean is ‖∇L‖² − tr Σ/n, ∇L over the training rows.)
        leaf_rows: mean rows of a leaf.
        pairs: tr Σ again, from pairs of neighbouring sums only: leaves averaged → (sum of estimates, number of pairs).
    """

    trace: float
    norm_squared: float
    leaf_rows: float
    pairs: Mapping[int, tuple[float, int]]


def step_noise(norms: Mapping[Node, float], counts: Sequence[int]) -> StepNoise | None:
    """Estimates from the squared norms of the gradient sums at every node of the tree.

    With G_s the gradient sum of leaf s over m_s rows, M = Σ m_s, and L leaves that have rows,

        tr Σ ≈ (Σ_s ‖G_s‖²/m_s − ‖Σ_s G_s‖²/M) / (L − 1),   |G|² ≈ ‖Σ_s G_s‖²/M² − tr Σ/M:

    the mean square between groups, unbiased for unequal m_s too; for equal m_s = b it is b/(V−1) Σ‖ḡ_s − ḡ‖².
    A node with equal children (means ḡ_l, ḡ_r over m_l, m_r rows) gives ‖ḡ_l − ḡ_r‖² / (1/m_l + 1/m_r), from averages of
    every size b, 2b, 4b, …: whether these agree is the 1/B law.

    Args:
        norms: ‖Σ gradients‖² of every node of the tree.
        counts: m_s, rows of each leaf.

    Returns:
        None when fewer than two leaves have rows.
    """
    shards = len(counts)
    leaves = [(norms[(s, s + 1)], m) for s, m in enumerate(counts) if m]
    if len(leaves) < 2:
        return None
    rows, root = sum(counts), norms[(0, shards)]
    trace = (sum(norm / m for norm, m in leaves) - root / rows) / (len(leaves) - 1)
    return StepNoise(trace, root / rows**2 - trace / rows, rows / shards, _pairs(norms, counts))


def _pairs(norms: Mapping[Node, float], counts: Sequence[int]) -> dict[int, tuple[float, int]]:
    """Estimates of tr Σ by the leaves averaged, from nodes whose two children have equally many leaves, all with rows."""
    pairs: dict[int, tuple[float, int]] = {}
    if min(counts) == 0:
        return pairs
    # Sorted, because answers arrive in any order and sums of floats depend on it.
    for node, norm in sorted(norms.items()):
        if node[1] - node[0] < 2:
            continue
        left, right = children(node)
        leaves = left[1] - left[0]
        if right[1] - right[0] != leaves:
            continue
        m_left, m_right = sum(counts[slice(*left)]), sum(counts[slice(*right)])
        inner = (norm - norms[left] - norms[right]) / 2
        distance = norms[left] / m_left**2 + norms[right] / m_right**2 - 2 * inner / (m_left * m_right)
        total, number = pairs.get(leaves, (0.0, 0))
        pairs[leaves] = (total + distance / (1 / m_left + 1 / m_right), number + 1)
    return pairs


@dataclass(frozen=True)
class NoiseHistory:
    """Noise estimates over the steps of a run.

    tr Σ and |G|² are smoothed separately and then divided: their ratio in one step is biased and may be negative.

    Attributes:
        weight: of what was smoothed so far, 1 − decay^steps; divides out the zero start.
        trace: exponentially smoothed tr Σ, times `weight`.
        norm_squared: exponentially smoothed |G|², times `weight`.
        trace_sum: Σ tr Σ over the steps that `pairs` covers.
        leaf_rows_sum: Σ mean rows of a leaf over these steps.
        steps: their number.
        pairs: leaves averaged → (sum of estimates of tr Σ from pairs, number of pairs).
    """

    weight: float = 0.0
    trace: float = 0.0
    norm_squared: float = 0.0
    trace_sum: float = 0.0
    leaf_rows_sum: float = 0.0
    steps: int = 0
    pairs: Mapping[int, tuple[float, int]] = field(default_factory=dict)

    def after(self, noise: StepNoise | None) -> NoiseHistory:
        """The history with one more step."""
        if noise is None:
            return self
        smoothed = replace(
            self,
            weight=_DECAY * self.weight + (1 - _DECAY),
            trace=_DECAY * self.trace + (1 - _DECAY) * noise.trace,
            norm_squared=_DECAY * self.norm_squared + (1 - _DECAY) * noise.norm_squared,
        )
        if not noise.pairs:
            return smoothed
        pairs = dict(self.pairs)
        for leaves, (total, number) in noise.pairs.items():
            before_total, before_number = pairs.get(leaves, (0.0, 0))
            pairs[leaves] = (before_total + total, before_number + number)
        return replace(
            smoothed,
            trace_sum=self.trace_sum + noise.trace,
            leaf_rows_sum=self.leaf_rows_sum + noise.leaf_rows,
            steps=self.steps + 1,
            pairs=pairs,
        )

    @property
    def smoothed_trace(self) -> float | None:
        """Tr Σ; None before the first estimate."""
        return self.trace / self.weight if self.weight else None

    @property
    def smoothed_norm_squared(self) -> float | None:
        """|G|²; None before the first estimate."""
        return self.norm_squared / self.weight if self.weight else None

    @property
    def noise_scale(self) -> float | None:
        """B_simple = tr Σ / |G|², in rows: an order of magnitude. None while |G|² is not above 0."""
        return self.trace / self.norm_squared if self.norm_squared > 0 and self.trace > 0 else None

    def variance_by_rows(self) -> list[tuple[float, float, float]]:
        """(rows averaged, measured variance of the average, tr Σ / rows), by rows, from the steps seen so far."""
        points = []
        for leaves, (total, number) in sorted(self.pairs.items()):
            rows = leaves * self.leaf_rows_sum / self.steps
            points.append((rows, total / number / rows, self.trace_sum / self.steps / rows))
        return points
