"""A script of a Ray Train user, as the cold start measures it: one optimizer step, said on stdout.

Arguments: the file of rows, B, a folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from ray import train
from ray.train.torch import prepare_model

from benchmarks.contenders.ray_train_fit import WORKERS, fit
from benchmarks.contenders.torch_work import DDP_SETTINGS, network, training


def train_loop(config: dict[str, Any]) -> None:
    """Of each worker."""
    torch.set_num_threads(1)
    model = prepare_model(network(), parallel_strategy_kwargs=DDP_SETTINGS)
    training(model, config["source"], config["batch"] // WORKERS)(1)
    if train.get_context().get_world_rank() == 0:
        # Straight to the script's output: Ray would forward it up to a second later.
        Path(config["stdout"]).write_text("step 1\n")


def main() -> None:
    """Trains on two workers."""
    source, batch, folder = sys.argv[1:]
    fit(train_loop, {"source": source, "batch": int(batch), "stdout": f"/proc/{os.getpid()}/fd/1"}, Path(folder))


if __name__ == "__main__":
    main()
