"""What the leaves of a step say about the variance of gradients, at no extra gradient pass.

Sources: MATH.md "Stochastic gradients"; McCandlish et al. 2018 (arXiv 1812.06162), appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

from shardsgd.model.intervals import Estimate, mean_interval, ratio_interval, t_quantile
from shardsgd.model.sums import in_order
from shardsgd.model.tree import Node, children, subtree

# Memory of the smoothed tr Σ and |G|²: about the last 100 steps.
_DECAY = 0.99
_FRESH = 1 - _DECAY


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
    every size b, 2b, 4b, …: whether these agree is the 1/B law. With sums G instead of means this is
    ‖G_l‖²/m_l + ‖G_r‖²/m_r − ‖G_l + G_r‖²/(m_l + m_r).

    Args:
        norms: ‖Σ gradients‖² of every node of the tree.
        counts: m_s, rows of each leaf.

    Returns:
        None when fewer than two leaves have rows.
    """
    shards = len(counts)
    with_rows = shards - counts.count(0)
    if with_rows < 2:
        return None
    before = (0, *accumulate(counts))
    rows = before[-1]
    # ‖sum‖²/rows of a node: of a pair's distance, and of the mean square between leaves, this is all that is needed.
    # A leaf without rows adds nothing.
    shares = {node: norms[node] / ((before[node[1]] - before[node[0]]) or 1) for node in subtree((0, shards))}
    root = shares[0, shards]
    trace = (in_order([shares[shard, shard + 1] for shard in range(shards)]) - root) / (with_rows - 1)
    # Sums in the tree's order: answers arrive in any, and sums of floats depend on it.
    pairs = {
        leaves: (in_order([shares[left] + shares[right] - shares[node] for node, left, right in nodes]), len(nodes))
        for leaves, nodes in (_levels(shards) if with_rows == shards else ())
    }
    return StepNoise(trace, (root - trace) / rows, rows / shards, pairs)


@lru_cache(maxsize=64)
def _levels(shards: int) -> tuple[tuple[int, tuple[tuple[Node, Node, Node], ...]], ...]:
    """Nodes with equally many leaves on both sides, each with its children, by the number of leaves on a side."""
    levels: dict[int, list[tuple[Node, Node, Node]]] = {}
    for node in subtree((0, shards)):
        if node[1] - node[0] < 2:
            continue
        left, right = children(node)
        leaves = left[1] - left[0]
        if right[1] - right[0] == leaves:
            levels.setdefault(leaves, []).append((node, left, right))
    return tuple((leaves, tuple(nodes)) for leaves, nodes in sorted(levels.items()))


@dataclass(frozen=True)
class NoiseHistory:
    """Noise estimates over the steps of a run.

    tr Σ and |G|² are smoothed separately and then divided: their ratio in one step is biased and may be negative.

    Intervals are for 95%. They take the steps' estimates as independent of each other, as nearly they are (rows drawn without
    replacement make them a little less alike), and their average as normal. An average of T steps with exponential weights is
    worth (1 + d)/(1 − d) · (1 − d^T)/(1 + d^T) steps of equal weight, d = 0.99: up to 199. Its variance is estimated from the
    spread of the steps around it. θ moves meanwhile, so what an interval covers is the average over these steps, and a
    drift widens it.

    Attributes:
        weight: of what was smoothed so far, 1 − decay^steps; divides out the zero start.
        trace: exponentially smoothed tr Σ, times `weight`.
        norm_squared: exponentially smoothed |G|², times `weight`.
        trace_spread: weighted Σ of squared distances of tr Σ from its smoothed value.
        norm_spread: the same of |G|².
        joint_spread: weighted Σ of the products of both distances.
        trace_sum: Σ tr Σ over the steps that `pairs` covers.
        leaf_rows_sum: Σ mean rows of a leaf over these steps.
        steps: their number.
        pairs: leaves averaged → (sum of estimates of tr Σ from pairs, number of pairs).
    """

    weight: float = 0.0
    trace: float = 0.0
    norm_squared: float = 0.0
    trace_spread: float = 0.0
    norm_spread: float = 0.0
    joint_spread: float = 0.0
    trace_sum: float = 0.0
    leaf_rows_sum: float = 0.0
    steps: int = 0
    pairs: Mapping[int, tuple[float, int]] = field(default_factory=dict)

    def after(self, noise: StepNoise | None) -> NoiseHistory:
        """The history with one more step.

        Spreads are updated as by West (1979): sums of squares of what is far from 0 would cancel.
        """
        if noise is None:
            return self
        kept = _DECAY * self.weight
        weight = kept + _FRESH
        trace_off = norm_off = 0.0
        if self.weight:
            trace_off = noise.trace - self.trace / self.weight
            norm_off = noise.norm_squared - self.norm_squared / self.weight
        moved = _FRESH * kept / weight
        steps, pairs = self.steps, self.pairs
        trace_sum, leaf_rows_sum = self.trace_sum, self.leaf_rows_sum
        if noise.pairs:
            steps, trace_sum, leaf_rows_sum = steps + 1, trace_sum + noise.trace, leaf_rows_sum + noise.leaf_rows
            pairs = dict(pairs)
            for leaves, (total, number) in noise.pairs.items():
                before_total, before_number = pairs.get(leaves, (0.0, 0))
                pairs[leaves] = (before_total + total, before_number + number)
        return NoiseHistory(
            weight=weight,
            trace=_DECAY * self.trace + _FRESH * noise.trace,
            norm_squared=_DECAY * self.norm_squared + _FRESH * noise.norm_squared,
            trace_spread=_DECAY * self.trace_spread + moved * trace_off * trace_off,
            norm_spread=_DECAY * self.norm_spread + moved * norm_off * norm_off,
            joint_spread=_DECAY * self.joint_spread + moved * trace_off * norm_off,
            trace_sum=trace_sum,
            leaf_rows_sum=leaf_rows_sum,
            steps=steps,
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

    @property
    def trace_interval(self) -> tuple[float, float] | None:
        """Of tr Σ; None while there are too few steps to tell."""
        precision = self._precision
        return precision and mean_interval(self._estimate(self.trace, self.trace_spread, precision), precision[1])

    @property
    def norm_squared_interval(self) -> tuple[float, float] | None:
        """Of |G|²; None while there are too few steps to tell. May reach below 0."""
        precision = self._precision
        return precision and mean_interval(self._estimate(self.norm_squared, self.norm_spread, precision), precision[1])

    @property
    def noise_scale_interval(self) -> tuple[float | None, float | None]:
        """Of tr Σ / |G|², in rows, by Fieller's theorem: see `ratio_interval` for what None means."""
        precision = self._precision
        if precision is None:
            return None, None
        trace = self._estimate(self.trace, self.trace_spread, precision)
        norm_squared = self._estimate(self.norm_squared, self.norm_spread, precision)
        return ratio_interval(trace, norm_squared, self.joint_spread * precision[0], precision[1])

    @property
    def _precision(self) -> tuple[float, float] | None:
        """(what a spread is multiplied by to be the variance of a smoothed value, Student's t); None with too few steps."""
        if not self.weight:
            return None
        # Σ of squares of the weights, which add up to 1: one over the number of steps the average is worth.
        squares = _FRESH / (1 + _DECAY) * (2 - self.weight) / self.weight
        quantile = t_quantile(1 / squares - 1)
        # A spread over the weight is biased low by 1 − squares.
        return None if quantile is None else (squares / ((1 - squares) * self.weight), quantile)

    def _estimate(self, weighted: float, spread: float, precision: tuple[float, float]) -> Estimate:
        return Estimate(weighted / self.weight, spread * precision[0])

    def variance_by_rows(self) -> list[tuple[float, float, float]]:
        """(rows averaged, measured variance of the average, tr Σ / rows), by rows, from the steps seen so far."""
        points = []
        for leaves, (total, number) in sorted(self.pairs.items()):
            rows = leaves * self.leaf_rows_sum / self.steps
            points.append((rows, total / number / rows, self.trace_sum / self.steps / rows))
        return points
