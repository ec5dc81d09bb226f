"""shardsgd: data-parallel minibatch SGD with the same bits for any number of workers.

Importing this package loads neither ray nor jax.
"""

from shardsgd.api import TrainResult, train
from shardsgd.coordinator.control import Control
from shardsgd.errors import (
    DataError,
    InputError,
    InterruptedJobError,
    JobError,
    ResumeError,
    ShardsgdError,
    SpecError,
    TakenOverError,
)
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec

__all__ = [
    "Control",
    "DataError",
    "InputError",
    "InterruptedJobError",
    "JobError",
    "JobSpec",
    "ResumeError",
    "ShardsgdError",
    "SpecError",
    "TakenOverError",
    "TrainResult",
    "read_spec",
    "train",
]
