"""Ray Train's TorchTrainer with two workers: parameters `source` and `batch`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from ray import train
from ray.train.torch import prepare_model

from benchmarks.contenders.ray_train_fit import WORKERS, fit
from benchmarks.contenders.torch_work import DDP_SETTINGS, network, obey_together, training
from benchmarks.orders import PARAMETERS, Orders


def train_loop(config: dict[str, Any]) -> None:
    """Of each worker; the first gets the orders straight from the harness."""
    torch.set_num_threads(1)
    model = prepare_model(network(), parallel_strategy_kwargs=DDP_SETTINGS)
    work = training(model, config["source"], config["batch"] // WORKERS)
    first = train.get_context().get_world_rank() == 0
    obey_together(work, Orders(Path(config["folder"])) if first else None)


def main() -> None:
    """Trains until the harness says that it is time to end."""
    folder = Path(sys.argv[1])
    parameters = json.loads((folder / PARAMETERS).read_text())
    fit(train_loop, {**parameters, "folder": str(folder)}, folder)


if __name__ == "__main__":
    main()
