"""The work that everybody does: the model, its rows, and the same as a job of ours."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contender import Contender

ROWS, FEATURES, CLASSES = 30_000, 784, 10
HIDDEN = (256, 128)
MOMENTUM = 0.9
LEARNING_RATE = 1e-4  # low: times do not depend on it, and no model here, however wide, may diverge

# In one process all cores are the peer's; in several, each has one thread, which is what torchrun sets.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def write_rows(path: Path, rows: int = ROWS) -> Path:
    """Writes random rows as an .npz file: `x` float32 [rows, 784], `y` in 0 … 9, `half` in 0 … 1 (for binary models)."""
    random = np.random.default_rng(0)
    x = random.random((rows, FEATURES), dtype=np.float32)
    scores = x @ random.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    y = (scores - scores.mean(axis=0)).argmax(axis=1).astype(np.int32)
    half = (y >= CLASSES // 2).astype(np.int32)
    np.savez(path, x=x, y=y, half=half)
    return path


def read_rows(path: str | Path, label: str = "y") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features and labels of such a file, in memory."""
    with np.load(path) as arrays:
        return arrays["x"], arrays[label]


def job(rows: Path, *, batch: int, shards: int, workers: int = 2, hidden: tuple[int, ...] = HIDDEN) -> dict[str, Any]:
    """Keywords of `shardsgd.JobSpec`, or tables of a job file: this work on those rows, without an end."""
    return {
        "name": "benchmark",
        "workers": {"count": workers},
        "data": {"source": str(rows), "label": "y", "validation": 0.0, "standardize": False},
        "model": {"kind": "mlp", "hidden": list(hidden), "activation": "relu"},
        "objective": {"loss": "softmax_cross_entropy"},
        "optimizer": {"kind": "momentum", "momentum": MOMENTUM, "learning_rate": LEARNING_RATE},
        "batch": {"size": batch, "shards": shards},
        "stop": {"steps": 10**9},
        # The default, 30 s, is of the clock, and five contenders take turns: once in 30 s of our own time.
        "checkpoint": {"every_seconds": 150.0},
    }


def ours(name: str, spec: dict[str, Any], steps: int = 1) -> Contender:
    """Our own library as a contender.

    Args:
        name: in the tables.
        spec: as `job` makes it.
        steps: in one repetition.
    """
    return Contender(name, "ours", {"spec": spec, "steps": steps})


def parameter_count(hidden: tuple[int, ...]) -> int:
    """Weights and biases of the network with these hidden layers."""
    sizes = (FEATURES, *hidden, CLASSES)
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
