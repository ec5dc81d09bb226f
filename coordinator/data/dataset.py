"""What loaders hand over (`Table`) and what training uses (`Dataset`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Rows as a loader found them: nothing split, scaled or encoded yet.

    Attributes:
        features: [rows, features], any real dtype, never object.
        labels: [rows], numbers or texts, never object.
        feature_names: a name for each column of `features`.
        source: what errors call it, usually the path.
        first_line: line of the file that row 0 stands on, for formats that have lines; else None.
    """

    features: Array
    labels: Array
    feature_names: tuple[str, ...]
    source: str
    first_line: int | None = None


@dataclass(frozen=True)
class Dataset:
    """Rows ready for training: split, scaled, labels encoded, dealt to shards.

    Attributes:
        shards: V pairs (x [n_s, features], y [n_s]); x in the spec's parameter dtype (float32 for bfloat16), y int32
            class numbers for classification losses, else of x's dtype. Row j of the seeded permutation is row j // V of
            shard j % V.
        validation: one such pair, or None where nothing was held out.
        rows: n, training rows over all shards.
        features: columns of x.
        outputs: outputs the network needs: classes for softmax cross-entropy, else 1.
        classes: the labels' own names in the order of their numbers; empty for regression.
        feature_names: a name for each column of x.
        mean: [features] float64 that was subtracted, None if not standardized.
        scale: [features] float64 that was divided by, None if not standardized.
        fingerprint: SHA-256 of everything above that enters training, to refuse a resume on other data.
    """

    shards: tuple[tuple[Array, Array], ...]
    validation: tuple[Array, Array] | None
    rows: int
    features: int
    outputs: int
    classes: tuple[str, ...]
    feature_names: tuple[str, ...]
    mean: NDArray[np.float64] | None
    scale: NDArray[np.float64] | None
    fingerprint: str
