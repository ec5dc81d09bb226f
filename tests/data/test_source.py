"""What `data.source` means, and that a format does not change what is learned from."""

import gzip
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardsgd.errors import DataError


@pytest.mark.parametrize(
    ("name", "loss", "expected"),
    [
        ("digits", "softmax_cross_entropy", (1797, 64, "pixel_0_0", 10)),
        ("iris", "softmax_cross_entropy", (150, 4, "sepal length (cm)", 3)),
        ("wine", "softmax_cross_entropy", (178, 13, "alcohol", 3)),
        ("breast_cancer", "logistic", (569, 30, "mean radius", 1)),
        ("diabetes", "squared_error", (442, 10, "age", 1)),
    ],
)
def test_bundled_sets(load, name, loss, expected):
    dataset = load(name, loss=loss, data={"validation": 0})
    assert (dataset.rows, dataset.features, dataset.feature_names[0], dataset.outputs) == expected


def test_diabetes_is_no_classification(load):
    with pytest.raises(DataError, match=r"regression.*squared_error"):
        load("diabetes")


def test_chosen_features_of_a_bundled_set(read, refusal):
    table = read("wine", features=("hue", "alcohol"))
    np.testing.assert_array_equal(table.features, read("wine").features[:, [10, 0]])
    message = refusal("wine", features=("hues",))
    assert 'mean "hue"' in message


@pytest.mark.parametrize("source", ["iris", "synthetic:linear"])
def test_sets_with_their_own_labels(refusal, source):
    message = refusal(source, label="species")
    assert 'data.label = "species"' in message
    assert source in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("digit", ['"digit"', 'mean "digits"', "breast_cancer", "synthetic:linear", ".csv", "IDX"]),
        ("mnist", ['"mnist"', "accepted", '"iris"']),
        ("taken", ["./taken"]),
        ("./no/such.csv", ["no/such.csv", "no such file"]),
        ("~nobody-of-that-name/x.csv", ["~nobody-of-that-name/x.csv", "no such file"]),
        ("./taken", ["taken", "neither .parquet files", ".npz"]),
        ("./taken/notes.txt", ["notes.txt", 'unknown format ".txt"', ".csv, .parquet, .npz, .npy or IDX"]),
        ("/dev/null", ["/dev/null", "neither a file nor a folder"]),
        ("./" + "x" * 300 + ".csv", ["cannot be read", "too long"]),
    ],
)
def test_refused(refusal, tmp_path, source, expected):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("")
    message = refusal(source)
    assert [part for part in expected if part not in message] == []


def test_a_missing_file_is_named_in_full(refusal, tmp_path):
    assert refusal("./missing.csv").startswith(str(tmp_path / "missing.csv"))


def test_the_format_does_not_matter(load, small, tmp_path):
    features, labels = small
    names = ("a", "b", "c")
    lines = [",".join(map(repr, [*row, label])) for row, label in zip(features.tolist(), labels.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,label", *lines]))
    np.savez(tmp_path / "t.npz", x=features.astype(np.float32), label=labels)
    np.save(tmp_path / "t.npy", np.column_stack([features, labels]))
    columns = dict(zip(names, features.T, strict=True)) | {"label": labels}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (tmp_path / "folder").mkdir()
    for part in range(3):
        rows = {name: column[part * 4 : part * 4 + 4] for name, column in columns.items()}
        pq.write_table(pa.table(rows), tmp_path / "folder" / f"{part}.parquet")
    images = b"\0\0\x0e\x02" + np.array(features.shape, ">u4").tobytes() + features.astype(">f8").tobytes()
    (tmp_path / "t-images-idx2").write_bytes(images)
    (tmp_path / "u-images-idx2.gz").write_bytes(gzip.compress(images))
    targets = b"\0\0\x08\x01" + np.array(labels.shape, ">u4").tobytes() + labels.astype("u1").tobytes()
    (tmp_path / "t-labels-idx1").write_bytes(targets)
    (tmp_path / "u-labels-idx1").write_bytes(targets)

    sources = ["t.csv", "t.npz", "t.npy", "t.parquet", "folder", "t-images-idx2", "u-images-idx2.gz"]
    datasets = [load(f"./{source}") for source in sources]
    first = datasets[0]
    assert first.classes == ("0", "1")
    for dataset in datasets[1:]:
        assert dataset.fingerprint == first.fingerprint
        assert dataset.classes == first.classes
        np.testing.assert_array_equal(dataset.mean, first.mean)
        for mine, others in zip(dataset.shards, first.shards, strict=True):
            np.testing.assert_array_equal(mine[0], others[0])
            np.testing.assert_array_equal(mine[1], others[1])


def test_loading_needs_neither_ray_nor_jax():
    code = "import sys, shardsgd.coordinator.data; sys.exit(not {'ray', 'jax', 'sklearn'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
