"""Two processes with one gloo group: this one and one that it starts."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.contenders.torch_work import obey_together
from benchmarks.orders import Orders

RANKS = 2

# From a contender's parameters to what does its work a number of times.
Prepare = Callable[[dict[str, Any]], Callable[[int], None]]


def obey_with_two_ranks(prepare: Prepare) -> None:
    """Runs a contender of two ranks, of one thread each, to its end.

    Args:
        prepare: called on both ranks once the process group is there; a function of a module.
    """
    orders = Orders.from_arguments()
    other = multiprocessing.get_context("spawn").Process(
        target=_rank, args=(1, prepare, orders.folder, orders.parameters, None), daemon=True
    )
    other.start()
    _rank(0, prepare, orders.folder, orders.parameters, orders)
    other.join()


def _rank(rank: int, prepare: Prepare, folder: Path, parameters: dict[str, Any], orders: Orders | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    try:
        obey_together(prepare(parameters), orders)
    finally:
        dist.destroy_process_group()
