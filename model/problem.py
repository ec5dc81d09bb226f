"""What a worker must know to compute its part of any step of a job: plain frozen values, no data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import ml_dtypes
import numpy as np

from shardsgd.model.layout import Layout
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import Optimizer, Sgd
from shardsgd.model.regularizer import Regularizer
from shardsgd.model.sampling import Sampling

# A round costs about as much as updating two blocks.
_SHARED_BLOCKS = 4

LossName = Literal["squared_error", "logistic", "softmax_cross_entropy"]
Precision = Literal["float32", "float64", "bfloat16"]
Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Problem:
    """A job's mathematics.

    Attributes:
        network: maps features to outputs.
        loss: of one row.
        sampling: which rows a leaf holds.
        precision: "bfloat16" computes leaves in bfloat16 and keeps parameters, losses and sums in float32.
        validation_rows: held-out rows; 0 for none.
        optimizer: the update rule.
        regularizer: r(θ) of the objective.
    """

    network: Network
    loss: LossName
    sampling: Sampling
    precision: Precision
    validation_rows: int
    optimizer: Optimizer = field(default_factory=Sgd)
    regularizer: Regularizer = field(default_factory=Regularizer)

    @property
    def parameter_dtype(self) -> np.dtype[Any]:
        """Of parameters, gradients and their sums."""
        return np.dtype(np.float64 if self.precision == "float64" else np.float32)

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        """Of activations and products."""
        return np.dtype(ml_dtypes.bfloat16) if self.precision == "bfloat16" else self.parameter_dtype

    @property
    def classifies(self) -> bool:
        """Whether a row can be right or wrong."""
        return self.loss != "squared_error"

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """Of labels: class numbers, or targets in the parameters' dtype."""
        return self.parameter_dtype if not self.classifies else np.dtype(np.int32)

    @cached_property
    def layout(self) -> Layout:
        """Of the flat parameter buffer."""
        return self.network.layout(self.parameter_dtype)

    @property
    def shares_updates(self) -> bool:
        """Whether it pays to share an update out over the workers, where they can, in a second round of the step."""
        return len(self.layout.blocks) >= _SHARED_BLOCKS

    def split_rows(self, split: Split) -> list[int]:
        """Rows of each array of a split: the shards, or the held-out rows as one."""
        if split == "validation":
            return [self.validation_rows]
        return [self.sampling.shard_rows(shard) for shard in range(self.sampling.shards)]
