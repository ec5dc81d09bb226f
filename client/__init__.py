"""shardsgd: data-parallel minibatch SGD with the same bits for any number of workers.

Importing this package loads neither ray nor jax.
"""

from shardsgd.api import TrainResult, train
from shardsgd.errors import (
    DataError,
    InputError,
    InterruptedJobError,
    JobError,
    ResumeError,
    ShardsgdError,
    SpecError,
)
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec

__all__ = [
    "DataError",
    "InputError",
    "InterruptedJobError",
    "JobError",
    "JobSpec",
    "ResumeError",
    "ShardsgdError",
    "SpecError",
    "TrainResult",
    "read_spec",
    "train",
]
