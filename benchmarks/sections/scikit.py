"""An epoch of the models that scikit-learn has too."""

from __future__ import annotations

import math

from benchmarks.alternate import Options, compare
from benchmarks.contender import Contender
from benchmarks.results import Comparison
from benchmarks.work import LEARNING_RATE, ROWS, job, ours, write_rows

BATCH = 256
OURS_2, OURS_8 = "ours V=2", "ours V=8"
SGD_CLASSIFIER, MLP_1, MLP_ALL = "SGDClassifier", "MLPClassifier, 1 BLAS thread", "MLPClassifier, a BLAS thread a core"
LINEAR, MLP = "logistic regression", "MLP 784-256-128-10"


def measure(options: Options) -> list[Comparison]:
    """A linear model and a network."""
    source = write_rows(options.scratch / "rows.npz")
    parameters = {"source": str(source), "batch": BATCH}
    steps = math.ceil(ROWS / BATCH)
    linear = {
        "data": {"source": str(source), "label": "half", "validation": 0.0, "standardize": False},
        "model": {"kind": "linear"},
        "objective": {"loss": "logistic"},
        "optimizer": {"kind": "sgd", "learning_rate": LEARNING_RATE},
    }
    return [
        compare(
            LINEAR,
            [
                Contender(SGD_CLASSIFIER, "sgd_classifier", parameters),
                ours(OURS_2, job(source, batch=BATCH, shards=2) | linear, steps),
                ours(OURS_8, job(source, batch=BATCH, shards=8) | linear, steps),
            ],
            options,
            rows=ROWS,
        ),
        compare(
            MLP,
            [
                Contender(MLP_1, "mlp_classifier", parameters, {"OPENBLAS_NUM_THREADS": "1"}),
                Contender(MLP_ALL, "mlp_classifier", parameters),
                ours(OURS_2, job(source, batch=BATCH, shards=2), steps),
                ours(OURS_8, job(source, batch=BATCH, shards=8), steps),
            ],
            options,
            rows=ROWS,
        ),
    ]
