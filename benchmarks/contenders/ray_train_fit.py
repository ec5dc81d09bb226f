"""Ray Train in a Ray of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

WORKERS = 2


def fit(train_loop: Callable[[dict[str, Any]], None], config: dict[str, Any], folder: Path) -> None:
    """Trains on two workers of one CPU each, and stops Ray.

    Args:
        train_loop: of each worker.
        config: its argument.
        folder: for Ray's files and results.
    """
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder / "ray"),
    )
    try:
        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=WORKERS),
            run_config=RunConfig(storage_path=str(folder / "results")),
        ).fit()
    finally:
        ray.shutdown()
