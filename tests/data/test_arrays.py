"""NumPy files: which array is what, and files that are damaged or hostile."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.data.npy_file import read_array
from shardsgd.errors import DataError


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        path = tmp_path / "train.npz"
        np.savez_compressed(path, **arrays)
        return path

    return write


@pytest.fixture
def npy(tmp_path):
    def write(array, name="train.npy"):
        path = tmp_path / name
        np.save(path, array)
        return path

    return write


def npy_bytes(header, content=b"", version=(1, 0)):
    encoded = header.encode("latin1")
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack("<H" if version == (1, 0) else "<I", len(encoded))
        + encoded
        + content
    )


def header(descr="'<f8'", shape="(2, 3)", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("name", ["features", "x", "X", "pixels"])
def test_npz_finds_the_features(npz, read, name):
    table = read(npz(**{name: [[1.0, 2], [3, 4]], "label": [0, 1]}))
    np.testing.assert_array_equal(table.features, [[1, 2], [3, 4]])
    assert table.feature_names == (f"{name}_0", f"{name}_1")
    assert table.labels.tolist() == [0, 1]


def test_npz_by_names(npz, read):
    path = npz(x=[[1], [2]], images=np.arange(8).reshape(2, 2, 2), y=[["a"], ["b"]])
    table = read(path, label="y", features=("images",))
    np.testing.assert_array_equal(table.features, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert table.labels.tolist() == ["a", "b"]


def test_npz_of_vectors(npz, read):
    assert read(npz(x=[1.0, 2, 3], label=[0, 1, 0])).features.shape == (3, 1)


@pytest.mark.parametrize(
    "array", [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6, dtype=">i4").reshape(2, 3)]
)
def test_memory_layouts(npz, read, array):
    features = read(npz(x=array, label=[0, 1])).features
    np.testing.assert_array_equal(features, array)
    assert features.dtype.isnative


@pytest.mark.parametrize(
    ("arrays", "fields", "expected"),
    [
        ({"x": [[1]], "labels": [0]}, {}, ['no array "label"', 'mean "labels"', '"x", "labels"']),
        ({"p": [[1]], "q": [[1]], "label": [0]}, {}, ["cannot tell", "data.features", '"p", "q"']),
        ({"x": [[1]], "X": [[1]], "label": [0]}, {}, ["cannot tell", '"x", "X"']),
        ({"label": [0]}, {}, ["only array"]),
        ({"x": [[1]], "label": [0]}, {"features": ("z",)}, ["data.features", "z", '"x"']),
        ({"x": [[1]], "z": [[1]], "label": [0]}, {"features": ("x", "z")}, ["data.features", "one array"]),
        ({"x": [[1]], "label": [0]}, {"features": ("label",)}, ["data.features", '"x"']),
        ({"x": [[1], [2], [3]], "label": [0, 1]}, {}, ['"x"', "3 rows", '"label"', "2 labels"]),
        ({"x": [[1j], [2]], "label": [0, 1]}, {}, ['"x"', "complex128", "accepted: integers"]),
        ({"x": [["a"], ["b"]], "label": [0, 1]}, {}, ['"x"', "<U1", "accepted: integers"]),
        ({"x": [[1], [2]], "label": np.array(["2026", "2027"], "M8[Y]")}, {}, ['"label"', "datetime64", "texts"]),
        ({"x": np.ones((2, 1), np.longdouble), "label": [0, 1]}, {}, ['"x"', "64 bits"]),
        ({"x": [[1], [2]], "label": np.zeros(2, "i4,f4")}, {}, ['"label"', "structured"]),
        ({"x": [[1], [2]], "label": np.eye(2)}, {}, ['"label"', "(2, 2)", "[rows]"]),
        ({"x": 3.0, "label": [0]}, {}, ['"x"', "single value"]),
        ({"x": [[1], [2]], "label": np.array([0, None])}, {}, ["object arrays and pickles are never read"]),
    ],
)
def test_npz_refused(npz, refusal, arrays, fields, expected):
    path = npz(**arrays)
    message = refusal(path, **fields)
    assert message.startswith(str(path))
    assert [part for part in expected if part not in message] == []


def test_pickles_are_never_loaded(tmp_path, refusal):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    path = tmp_path / "train.npy"
    path.write_bytes(pickle.dumps(Bomb()))
    assert "not a NumPy array" in refusal(path)
    path.write_bytes(npy_bytes(header("'|O'", "(1,)"), pickle.dumps(Bomb())))
    assert "pickles are never read" in refusal(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"not a zip",
        lambda content: content[: len(content) // 2],
        lambda content: content[:60] + bytes(byte ^ 0xFF for byte in content[60:90]) + content[90:],
    ],
)
def test_damaged_npz(npz, refusal, damage):
    path = npz(x=np.random.default_rng(0).random((50, 3)), label=np.arange(50))
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert "cannot be read as an .npz archive" in message


def test_encrypted_npz(npz, refusal):
    path = npz(x=[[1]], label=[0])
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:  # sets the flag "encrypted" in every entry of the directory
        content[place + 8] |= 1
        place = content.find(b"PK\x01\x02", place + 4)
    path.write_bytes(content)
    assert "encrypted" in refusal(path)


def test_an_array_that_claims_more_than_its_member_holds(tmp_path, refusal):
    path = tmp_path / "train.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(header(shape="(1000000000000, 1000)"), b"\0" * 48))
        archive.writestr("label.npy", npy_bytes(header(shape="(6,)"), b"\0" * 48))
    message = refusal(path)
    assert "8000000000000000 bytes, but 48" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a NumPy array"),
        (b"\x93NUMPY\x01", "not a NumPy array"),
        (npy_bytes(header(), bytes(48), version=(3, 0)), "version 3.0"),
        (npy_bytes(header(), bytes(47)), "takes 48 bytes, but 47"),
        (npy_bytes(header(), bytes(49)), "takes 48 bytes, but 49"),
        (npy_bytes(header(shape="(-2, -3)"), bytes(48)), "damaged: shape (-2, -3)"),
        (npy_bytes(header(shape="(2, 3"), bytes(48)), "not a NumPy array"),
        (npy_bytes(header("'<f99'"), bytes(48)), "not a NumPy array"),
        (npy_bytes("{"), "not a NumPy array"),
        (npy_bytes("{[]: 1}"), "not a NumPy array"),
        (npy_bytes("-" * 5000 + "1"), "not a NumPy array"),
        (npy_bytes(" " * 20000), "not a NumPy array"),
        (npy_bytes(header("[('a', '<f8')]", "(2,)"), bytes(16)), "structured"),
        (npy_bytes(header("('<f8', (9,))", "(2,)"), bytes(144)), "structured"),
    ],
)
def test_damaged_npy(tmp_path, refusal, content, expected):
    path = tmp_path / "train.npy"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(str(path))
    assert expected in message


@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_to_a_header_is_refused_or_harmless(changes):
    content = bytearray(npy_bytes(header(), bytes(48)))
    for place, byte in changes:
        content[place % len(content)] = byte
    try:
        array = read_array(io.BytesIO(bytes(content)), len(content), "train.npy")
    except DataError:
        return
    assert array.nbytes <= len(content)


def test_npy_of_python_2_is_read_without_a_warning(tmp_path, read):
    path = tmp_path / "train.npy"
    path.write_bytes(npy_bytes(header(shape="(2L, 3L)"), np.arange(6.0).tobytes(), version=(2, 0)))
    np.testing.assert_array_equal(read(path).labels, [2, 5])


@pytest.mark.parametrize(
    ("label", "column", "names"), [("label", 2, "01"), ("0", 0, "12"), ("-2", 1, "02"), ("2", 2, "01")]
)
def test_npy_with_a_column_of_labels(npy, read, label, column, names):
    array = np.arange(12.0).reshape(4, 3)
    table = read(npy(array), label=label)
    np.testing.assert_array_equal(table.labels, array[:, column])
    np.testing.assert_array_equal(table.features, np.delete(array, column, axis=1))
    assert table.feature_names == tuple(names)


def test_npy_with_a_file_of_labels(npy, read):
    npy(np.array(["a", "b"]), "classes.npy")
    table = read(npy(np.arange(8).reshape(2, 2, 2)), label="classes.npy", features=("3", "0"))
    np.testing.assert_array_equal(table.features, [[3, 0], [7, 4]])
    assert table.labels.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("array", "fields", "expected"),
    [
        (np.ones((2, 3)), {"label": "3"}, ['data.label = "3"', "from -3 to 2"]),
        (np.ones((2, 3)), {"label": "-4"}, ['data.label = "-4"', "from -3 to 2"]),
        (np.ones((2, 3)), {"label": "y"}, ['data.label = "y"', "column number", ".npy"]),
        (np.ones((2, 3)), {"label": "no.npy"}, ['data.label = "no.npy"', "no such file"]),
        (np.ones((2, 3)), {"label": "../labels.npy"}, ['data.label = "../labels.npy"', "in that folder"]),
        (np.ones((2, 3)), {"features": ("2",)}, ["data.features", '"2"', 'accepted: "0", "1"']),
        (np.ones((2, 3, 4)), {}, ["(2, 3, 4)", "rows and columns", "file of labels"]),
        (np.ones(3), {}, ["(3,)", "rows and columns"]),
        (np.ones((3, 0)), {}, ["data.label"]),
    ],
)
def test_npy_refused(npy, refusal, array, fields, expected):
    path = npy(array)
    np.save(path.parent.parent / "labels.npy", np.zeros(2))
    message = refusal(path, **fields)
    assert str(path) in message
    assert [part for part in expected if part not in message] == []


def test_npy_with_too_few_labels(npy, refusal):
    npy(np.zeros(3), "y.npy")
    message = refusal(npy(np.ones((4, 2))), label="y.npy")
    assert "train.npy has 4 rows" in message
    assert "y.npy has 3 labels" in message
