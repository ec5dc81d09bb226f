"""IDX files: every type, with and without gzip, the search for labels, and damage."""

import gzip
import math
import struct

import numpy as np
import pytest

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    array = np.asarray(array)
    code = CODES[f"{array.dtype.kind}{array.dtype.itemsize}"]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 1, 0, 1], np.uint8)


@pytest.fixture
def idx(tmp_path):
    def write(name, content):
        path = tmp_path / name
        raw = content if isinstance(content, bytes) else idx_bytes(content)
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


@pytest.mark.parametrize("dtype", CODES)
def test_types(idx, read, dtype):
    values = (np.arange(24) - (0 if dtype == "u1" else 12)).reshape(4, 2, 3).astype(dtype)
    path = idx("train-images-idx3-ubyte", values)
    idx("train-labels-idx1-ubyte", LABELS)
    table = read(path)
    np.testing.assert_array_equal(table.features, values.reshape(4, 6))
    assert table.features.dtype == values.dtype
    assert table.feature_names == tuple(f"pixel_{pixel}" for pixel in range(6))
    np.testing.assert_array_equal(table.labels, LABELS)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("emnist-train-images-idx4-float.gz", "emnist-train-labels-idx1-float.gz"),
    ],
)
def test_labels_are_found_by_name(idx, read, images, labels):
    idx(labels, LABELS)
    np.testing.assert_array_equal(read(idx(images, IMAGES)).labels, LABELS)


def test_labels_by_a_name_given(idx, read):
    idx("train-labels-idx1-ubyte", LABELS)
    idx("other.bin", 1 - LABELS)
    table = read(idx("train-images-idx3-ubyte", IMAGES), label="other.bin", features=("pixel_5",))
    np.testing.assert_array_equal(table.labels, 1 - LABELS)
    np.testing.assert_array_equal(table.features[:, 0], IMAGES[:, 1, 2])


@pytest.mark.parametrize(
    ("files", "first"),
    [
        (("some-images-idx3-ubyte.gz",), "some-images-idx3-ubyte.gz"),
        (("t10k-images-idx3-ubyte", "train-images-idx3-ubyte.gz"), "train-images-idx3-ubyte.gz"),
        (("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"), "train-images-idx3-ubyte"),
    ],
)
def test_folders(idx, read, tmp_path, files, first):
    for name in files:
        idx(name, IMAGES)
        idx(name.replace("images-idx3", "labels-idx1"), LABELS)
    assert read(tmp_path).source == str(tmp_path / first)


@pytest.mark.parametrize("files", [(), ("a-images-idx3-ubyte", "b-images-idx3-ubyte"), ("train-labels-idx1-ubyte",)])
def test_folders_that_do_not_say_which(idx, refusal, tmp_path, files):
    for name in files:
        idx(name, IMAGES)
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path))
    assert "one IDX pair" in message


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("train-images-idx3-ubyte", {}, ["train-labels-idx1-ubyte.gz", "data.label"]),
        ("pixels.gz", {}, ["no labels file", "data.label"]),
        ("train-images-idx3-ubyte", {"label": "no-labels"}, ['data.label = "no-labels"', "no such file beside"]),
        ("train-images-idx3-ubyte", {"label": "../outside"}, ['data.label = "../outside"', "in that folder"]),
    ],
)
def test_missing_labels(idx, refusal, name, fields, expected):
    path = idx(name, IMAGES)
    (path.parent.parent / "outside").write_bytes(idx_bytes(LABELS))
    message = refusal(path, **fields)
    assert str(path) in message
    assert [part for part in expected if part not in message] == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["not an IDX file", "(none)"]),
        (b"\x89PNG\r\n", ["not an IDX file", "89 50 4e 47", "08, 09"]),
        (b"\0\0\x0a\x01" + bytes(8), ["not an IDX file", "00 00 0a 01"]),
        (b"\0\0\x08\x00" + bytes(8), ["not an IDX file"]),
        (idx_bytes(IMAGES)[:10], ["inside its header"]),
        (idx_bytes(IMAGES)[:-1], ["truncated", "(4, 2, 3)", "24 bytes"]),
        (idx_bytes(IMAGES) + b"\0", ["longer", "(4, 2, 3)", "24 bytes"]),
        (b"\0\0\x0e\x03" + b"\xff" * 12 + bytes(99), ["truncated", str(8 * math.prod([2**32 - 1] * 3))]),
        (idx_bytes(IMAGES[:3]), ["3 rows", "4 labels"]),
    ],
)
def test_damaged_images(idx, refusal, suffix, content, expected):
    path = idx(f"train-images-idx3-ubyte{suffix}", content)
    idx("train-labels-idx1-ubyte", LABELS)
    message = refusal(path)
    assert message.startswith(str(path))
    assert [part for part in expected if part not in message] == []


def test_rows_without_a_pixel_keep_their_number(idx, read):
    idx("train-labels-idx1-ubyte", LABELS)
    assert read(idx("train-images-idx3-ubyte", np.zeros((4, 0, 3), np.uint8))).features.shape == (4, 0)


def test_labels_of_a_wrong_shape(idx, refusal):
    labels = idx("train-labels-idx1-ubyte", IMAGES)
    message = refusal(idx("train-images-idx3-ubyte", IMAGES))
    assert message.startswith(str(labels))
    assert "(4, 2, 3)" in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-12],
        lambda content: content[:12] + b"\xff\xff\xff" + content[15:],
        lambda content: content[:-8] + b"\0\0\0\0" + content[-4:],
        lambda content: content[:5],
    ],
)
def test_damaged_gzip(idx, refusal, damage):
    path = idx("train-images-idx3-ubyte.gz", IMAGES)
    idx("train-labels-idx1-ubyte", LABELS)
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(path)
    assert message.startswith(str(path))
    assert "damaged gzip" in message
