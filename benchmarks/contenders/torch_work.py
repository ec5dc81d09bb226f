"""The work in PyTorch, and how ranks of one process group obey together."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.orders import Orders
from benchmarks.work import CLASSES, FEATURES, HIDDEN, LEARNING_RATE, MOMENTUM, read_rows

# Tried for a step of this model at B = 64, 256 and 1024, all within the noise of each other: no options at all; bucket views; a
# static graph; buckets of 1 and of 100 MB; SGD as a loop, foreach and fused; x[rows] and index_select; torch.compile inside and
# outside of DDP. These are the settings that the documentation has for the case; fused was the fastest SGD by a few percent.
DDP_SETTINGS: dict[str, Any] = {"gradient_as_bucket_view": True, "static_graph": True}


def network() -> nn.Module:
    """The MLP."""
    sizes = (FEATURES, *HIDDEN)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], CLASSES))


def training(model: nn.Module, source: str | Path, rows: int) -> Callable[[int], None]:
    """A function that takes a number of steps.

    Args:
        model: the network, wrapped for distributed training.
        source: of the data.
        rows: of this rank in a step.
    """
    x, y = (torch.from_numpy(array) for array in read_rows(source))
    y = y.long()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def steps(count: int) -> None:
        for _ in range(count):
            picked = torch.randint(len(x), (rows,))
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x[picked]), y[picked]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return steps


def obey_together(work: Callable[[int], None], orders: Orders | None) -> None:
    """Obeys until it is time to end, on every rank of the process group; a rank that waits uses no CPU.

    Args:
        work: does the work a number of times, together with the other ranks.
        orders: on rank 0; it passes them on.
    """
    while repetitions := _shared(orders.next() if orders else None):
        started = time.perf_counter()
        work(repetitions)
        if orders:
            orders.answer(time.perf_counter() - started)
    if orders:
        orders.finish()


def _shared(repetitions: int | None) -> int:
    """Rank 0's number on every rank; 0 for None."""
    message = torch.tensor([repetitions or 0])
    dist.broadcast(message, src=0)
    return int(message)
