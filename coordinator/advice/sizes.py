"""Which batch sizes and numbers of workers are worth measuring."""

from __future__ import annotations

import math

# Of batch sizes: each is measured on each number of workers, for two seconds or three.
_MOST_SIZES = 6


def batch_sizes(present: int, rows: int, noise_scale: float | None) -> tuple[int, ...]:
    """B₀ times powers of two, from B₀/4 to 4·B₀, and on to the noise scale; at most six.

    A step time a + cB makes progress per second fastest at B* = √(B_s·a/c), and at x·B* slower by no more than a factor
    (x + 1/x)/2: within √2 of B*, which one of a series of doublings is, by 6% at most.

    Args:
        present: B₀, always among them.
        rows: n; no larger size is given.
        noise_scale: B_s in rows, if there is an estimate.
    """
    most = math.ceil(math.log2(max(4.0, (noise_scale or 0.0) / present)))
    doublings = [k for k in range(-2, most + 1) if present * 2.0**k <= rows]
    # In larger steps if there are too many: still with B₀, which is at 0.
    apart = next(m for m in range(1, most + 3) if sum(k % m == 0 for k in doublings) <= _MOST_SIZES)
    return tuple(sorted({max(1, int(present * 2.0**k)) for k in doublings if k % apart == 0}))


def worker_counts(count: int) -> tuple[int, ...]:
    """One worker, half of them, all."""
    return tuple(sorted({1, (count + 1) // 2, count}))
