"""gloo's all-reduce and the division by the number of ranks, in place: parameter `bytes`, of float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.contenders.torch_ranks import RANKS, obey_with_two_ranks


def prepare(parameters: dict[str, Any]) -> Callable[[int], None]:
    """Averages of one rank."""
    # Tried for 10 and 100 MB: the buffer in 2, 4 and 8 parts at a time, which takes as long.
    values = torch.ones(parameters["bytes"] // 4)

    def average(count: int) -> None:
        for _ in range(count):
            dist.all_reduce(values)
            values.div_(RANKS)

    return average


if __name__ == "__main__":
    obey_with_two_ranks(prepare)
