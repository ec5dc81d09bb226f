"""Shared by the tests of data: one small dataset, and what a wrong source is refused with."""

import numpy as np
import pytest

from shardsgd.coordinator.data import load_dataset, read_table
from shardsgd.errors import DataError
from shardsgd.spec import Data, JobSpec


@pytest.fixture
def small():
    """Twelve rows of three features and labels of two classes, exact in float32 so that every format can hold them."""
    features = np.arange(36, dtype=np.float64).reshape(12, 3) ** 2 / 4
    return features, np.arange(12) % 2


@pytest.fixture
def read():
    """Reads a source: `read(path, label="y")`."""
    return lambda source, **fields: read_table(Data(source=str(source), **fields))


@pytest.fixture
def refusal(read):
    """The message with which a source is refused: one line, however wrong the source is."""

    def message(source, **fields):
        with pytest.raises(DataError) as caught:
            read(source, **fields)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    return message


@pytest.fixture
def load():
    """Loads a source as a job would: `load(path, data={"validation": 0}, batch={"size": 4})`."""

    def dataset(source, *, seed=0, data=(), batch=(), loss="softmax_cross_entropy"):
        spec = JobSpec(
            seed=seed,
            data={"source": str(source), **dict(data)},
            objective={"loss": loss},
            batch={"size": 4, **dict(batch)},
        )
        return load_dataset(spec.resolved())

    return dataset
