"""Evaluation of rows at given parameters."""

import numpy as np
import pytest

from shardsgd.model.chunks import EVALUATION_ROWS, chunks
from shardsgd.model.evaluation import evaluation_program
from shardsgd.model.networks import Network
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling


def problem(loss, outputs, rows=1500, validation_rows=700):
    sampling = Sampling(0, rows, batch=8, shards=3, kind="shuffle")
    return Problem(Network(4, (5,), outputs, "tanh"), loss, sampling, "float64", validation_rows)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_chunks_hold_every_row_once(split):
    spec = problem("logistic", 1)
    held = {array: np.zeros(rows, int) for array, rows in enumerate(spec.split_rows(split))}
    for array, start, stop in chunks(spec, split):
        assert 0 < stop - start <= EVALUATION_ROWS
        held[array][start:stop] += 1
    assert sum(map(len, held.values())) == (1500 if split == "train" else 700)
    assert all(np.all(counts == 1) for counts in held.values())


def test_no_held_out_rows_are_no_chunks():
    assert chunks(problem("logistic", 1, validation_rows=0), "validation") == []


@pytest.mark.parametrize(("loss", "outputs"), [("squared_error", 1), ("logistic", 1), ("softmax_cross_entropy", 3)])
def test_losses_and_hits_are_weighted_sums(loss, outputs):
    spec = problem(loss, outputs)
    random = np.random.default_rng(1)
    theta = spec.network.initialize(0, spec.layout)
    p = spec.layout.views(theta)
    x = random.normal(size=(EVALUATION_ROWS, 4))
    y = random.normal(size=EVALUATION_ROWS) if loss == "squared_error" else random.integers(0, max(2, outputs), 256)
    y = y.astype(spec.label_dtype)
    w = (np.arange(EVALUATION_ROWS) < 100).astype(np.float64)
    total, right = evaluation_program(spec)(p, x, y, w)

    z = np.tanh(x @ p["layer0.weight"] + p["layer0.bias"]) @ p["layer1.weight"] + p["layer1.bias"]
    if loss == "squared_error":
        losses, hits = (z[:, 0] - y) ** 2, np.zeros(len(y))
    elif loss == "logistic":
        losses, hits = np.log(1 + np.exp(-(2 * y - 1) * z[:, 0])), (z[:, 0] > 0) == y
    else:
        losses = -np.log((np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))[np.arange(len(y)), y])
        hits = z.argmax(axis=1) == y
    assert total == pytest.approx(losses[:100].sum(), rel=1e-13)
    assert right == hits[:100].sum()
