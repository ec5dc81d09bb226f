"""The exchange alone: the average of two processes' float32 buffers, without any gradient."""

from __future__ import annotations

from benchmarks.alternate import Options, compare
from benchmarks.contender import Contender
from benchmarks.results import Comparison
from benchmarks.work import ONE_THREAD

SIZES = {"4 KB": 4 * 10**3, "1 MB": 10**6, "10 MB": 10**7, "100 MB": 10**8}
GLOO, OURS = "gloo all-reduce", "ours"


def measure(options: Options) -> list[Comparison]:
    """One comparison a size."""
    return [
        compare(
            size,
            [
                Contender(GLOO, "gloo", {"bytes": count}, ONE_THREAD),
                Contender(OURS, "exchange_ours", {"bytes": count}),
            ],
            options,
        )
        for size, count in SIZES.items()
    ]
