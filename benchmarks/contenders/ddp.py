"""PyTorch's DistributedDataParallel over gloo: parameters `source` and `batch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from benchmarks.contenders.torch_ranks import RANKS, obey_with_two_ranks
from benchmarks.contenders.torch_work import DDP_SETTINGS, network, training


def prepare(parameters: dict[str, Any]) -> Callable[[int], None]:
    """Steps of one rank."""
    model = DistributedDataParallel(network(), **DDP_SETTINGS)
    return training(model, parameters["source"], parameters["batch"] // RANKS)


if __name__ == "__main__":
    obey_with_two_ranks(prepare)
