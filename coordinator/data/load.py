"""From a job spec to data ready for training."""

from __future__ import annotations

from shardsgd.coordinator.data.dataset import Dataset
from shardsgd.coordinator.data.prepare import prepare
from shardsgd.coordinator.data.source import read_table
from shardsgd.errors import DataError
from shardsgd.spec import JobSpec


def load_dataset(spec: JobSpec) -> Dataset:
    """Reads `data.source` and makes it ready for training.

    Args:
        spec: resolved, that is with `batch.shards` at most `batch.size`.

    Raises:
        DataError: the source cannot be read, or cannot be trained on as the spec says.
    """
    try:
        return prepare(read_table(spec.data), spec)
    except MemoryError:
        raise DataError(f"{spec.data.source}: does not fit into this machine's memory") from None
