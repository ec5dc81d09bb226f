"""What a noise scale says about batch sizes.

Source: McCandlish, Kaplan, Amodei et al. 2018, "An Empirical Model of Large-Batch Training" (arXiv:1812.06162), section 2. With
the noise scale B_s = tr Σ/|G|² in rows, a step of B rows at the best rate for them gets 1/(1 + B_s/B) as far as one without
noise, and that best rate is proportional to the same factor. docs/batch-size.md says when this misleads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shardsgd.coordinator.records import GradientNoise


@dataclass(frozen=True)
class NoiseScale:
    """A measured B_s, in rows.

    Attributes:
        rows: the estimate; None: there is none.
        low: lower end of its 95% interval; None: nothing can be told.
        high: upper end; inf: it has none. Without meaning where `low` is None.
    """

    rows: float | None
    low: float | None
    high: float


def noise_scale(noise: GradientNoise) -> NoiseScale:
    """What a run measured."""
    high = noise.noise_scale_high
    return NoiseScale(noise.noise_scale, noise.noise_scale_low, math.inf if high is None else high)


def efficiency(batch: int, scale: float) -> float:
    """1/(1 + B_s/B): the share of a noiseless step's progress that a step of `batch` rows makes, at the best rate for each.

    Args:
        batch: B, in rows.
        scale: B_s, in rows; may be inf.
    """
    return 1 / steps_factor(batch, scale)


def steps_factor(batch: int, scale: float) -> float:
    """1 + B_s/B: steps of `batch` rows to a loss, over noiseless ones to the same loss (their equation 2.11)."""
    return 1 + scale / batch


def progress_ratio(batch: int, present: int, scale: float) -> float:
    """(1 + B_s/B₀)/(1 + B_s/B): a step's progress at B = `batch` over that at B₀ = `present`; B/B₀ in the limit of much noise.

    The best learning rates have the same ratio (their equation 2.6): linear in B far below B_s, constant far above.
    """
    return batch / present if math.isinf(scale) else steps_factor(present, scale) / steps_factor(batch, scale)
