"""Parquet: one file, a folder of files, and what is refused in them."""

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def parquet_file(tmp_path):
    def write(columns, name="train.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return path

    return write


def test_kinds_of_columns(parquet_file, read):
    path = parquet_file(
        {
            "a.b": pa.array([1, 2], pa.uint8()),
            "half": pa.array([0.5, 1.5], pa.float16()),
            "flag": [True, False],
            "money": pa.array([decimal.Decimal("1.25"), decimal.Decimal("2.50")]),
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "__index_level_0__": [7, 8],
        }
    )
    table = read(path)
    assert table.feature_names == ("a.b", "half", "flag", "money")
    np.testing.assert_array_equal(table.features, [[1, 0.5, 1, 1.25], [2, 1.5, 0, 2.5]])
    assert table.labels.tolist() == ["x", "y"]
    assert table.first_line is None


def test_float32_stays_float32(parquet_file, read):
    path = parquet_file({"a": pa.array([1, 2], pa.float32()), "label": [0, 1]})
    assert read(path).features.dtype == np.float32


def test_a_folder_is_read_by_name_with_columns_by_name(parquet_file, read, tmp_path):
    parquet_file({"label": [1.5], "b": [4], "a": [3]}, "set/part-1.parquet")
    parquet_file({"a": [1], "b": [2.5], "label": [0]}, "set/part-0.parquet")
    for name in ("_SUCCESS", "_metadata.parquet", ".hidden.parquet", "notes.txt"):
        (tmp_path / "set" / name).write_text("not data")
    table = read(tmp_path / "set")
    assert table.feature_names == ("a", "b")
    np.testing.assert_array_equal(table.features, [[1, 2.5], [3, 4]])
    assert table.labels.tolist() == [0, 1.5]


@pytest.mark.parametrize("extra", [{"b": [1]}, {}])
def test_files_of_a_folder_must_have_the_same_columns(parquet_file, refusal, tmp_path, extra):
    parquet_file({"a": [1], "c": [1], "label": [0]}, "set/0.parquet")
    path = parquet_file({"a": [1], "label": [0], **extra}, "set/1.parquet")
    message = refusal(tmp_path / "set")
    assert message.startswith(str(path))
    assert ('"b"' if extra else '"c"') in message
    assert "0.parquet" in message


def test_texts_and_numbers_do_not_mix_over_files(parquet_file, refusal, tmp_path):
    parquet_file({"a": [1], "label": [0]}, "set/0.parquet")
    parquet_file({"a": [1], "label": ["0"]}, "set/1.parquet")
    message = refusal(tmp_path / "set")
    assert 'column "label"' in message
    assert "text" in message


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [1.0, None, None], "label": [0, 1, 0]}, ['column "a"', "row 1", "null", "2 such rows"]),
        ({"a": [1, 2], "label": ["x", None]}, ['column "label"', "row 1", "null", "1 such"]),
        ({"a": ["1", "2"], "label": [0, 1]}, ['column "a"', "string", "accepted: integers"]),
        ({"a": [[1], [2]], "label": [0, 1]}, ['column "a"', "list", "accepted"]),
        ({"a": [1, 2], "label": pa.array([1, 2], pa.timestamp("s"))}, ['column "label"', "timestamp", "texts"]),
        ({"a": [1], "labels": [0]}, ['no column "label"', 'mean "labels"']),
        ({"label": [0]}, ["only column"]),
    ],
)
def test_refused(parquet_file, refusal, columns, expected):
    path = parquet_file(columns)
    message = refusal(path)
    assert message.startswith(str(path))
    assert [part for part in expected if part not in message] == []


def test_repeated_columns(refusal, tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "a", "label"]), path)
    assert 'two columns are called "a"' in refusal(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"a,b\n1,2\n",
        lambda content: content[: len(content) // 2],
        lambda content: content[:4] + b"\xff" * 40 + content[44:],
        lambda content: content[:-60] + b"\xff" * 50 + content[-10:],
    ],
)
def test_damaged(parquet_file, refusal, damage):
    path = parquet_file({"a": [1, 2], "label": [0, 1]})
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert "cannot be read as Parquet" in message
