"""Made data has the answer it says it has."""

import numpy as np
import pytest

from shardsgd.coordinator.data.synthetic import linear_answer


@pytest.mark.parametrize("noise", [0, 0.1])
def test_least_squares_recovers_the_answer(read, noise):
    source = f"synthetic:linear,rows=4000,features=6,noise={noise},seed=3"
    table = read(source)
    found, *_ = np.linalg.lstsq(table.features, table.labels)
    # The deviation of an estimate is noise / sqrt(rows); five of them bound all six.
    np.testing.assert_allclose(found, linear_answer(source), rtol=0, atol=5 * noise / np.sqrt(4000) + 1e-12)
    residual = table.labels - table.features @ found
    assert residual.std() == pytest.approx(noise, rel=0.05, abs=1e-12)


def test_features_are_standard_normal(read):
    x = read("synthetic:linear,rows=20000,features=3").features
    np.testing.assert_allclose(np.corrcoef(x.T), np.eye(3), atol=0.03)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose((x**4).mean(axis=0), 3, atol=0.3)


def test_blobs(read):
    table = read("synthetic:blobs,rows=3000,features=5,classes=3,spread=0.5")
    assert np.bincount(table.labels).tolist() == [1000, 1000, 1000]
    for number in range(3):
        np.testing.assert_allclose(table.features[table.labels == number].std(axis=0), 0.5, rtol=0.1)
    assert len({tuple(np.round(table.features[table.labels == number].mean(axis=0))) for number in range(3)}) == 3


def test_defaults_and_seeds(read):
    assert read("synthetic:linear").features.shape == (1000, 10)
    assert read("synthetic:blobs, rows = 7").features.shape == (7, 10)
    again = [read(f"synthetic:linear,rows=5,seed={seed}").features for seed in (0, 0, 1)]
    np.testing.assert_array_equal(again[0], again[1])
    assert (again[0] != again[2]).all()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("synthetic:", ['kind ""', "synthetic:linear", "synthetic:blobs"]),
        ("synthetic:blob", ['kind "blob"', 'mean "blobs"']),
        ("synthetic:linear,row=5", ['parameter "row"', 'mean "rows"', "rows=…, features=…, seed=…, noise=…"]),
        ("synthetic:linear,spread=1", ['parameter "spread"', "noise=…"]),
        ("synthetic:linear,rows=5,rows=6", ["rows", "twice"]),
        ("synthetic:linear,rows", ['rows = ""', "an integer from 1"]),
        ("synthetic:linear,rows=0", ['rows = "0"', "an integer from 1"]),
        ("synthetic:linear,rows=2.5", ['rows = "2.5"', "an integer"]),
        ("synthetic:linear,noise=-1", ['noise = "-1"', "a number from 0"]),
        ("synthetic:linear,noise=nan", ['noise = "nan"', "a number from 0"]),
        ("synthetic:blobs,classes=1", ['classes = "1"', "from 2"]),
        ("synthetic:linear,seed=-1", ['seed = "-1"', "from 0 to 9223372036854775807"]),
        ("synthetic:linear,rows=100000000,features=100000000", ["rows times features"]),
    ],
)
def test_refused(refusal, source, expected):
    message = refusal(source)
    assert [part for part in [f'data.source = "{source}"', *expected] if part not in message] == []
