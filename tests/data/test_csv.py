"""CSV files: what is read, and the line and column of what is not."""

import numpy as np
import pytest


@pytest.fixture
def csv_file(tmp_path):
    def write(content):
        path = tmp_path / "train.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        "a,b,label\n1,2.5,x\n3,4,y\n",
        "a,b,label\n1,2.5,x\n3,4,y",
        "a,b,label\r\n1,2.5,x\r\n3,4,y\r\n",
        "a,b,label\r1,2.5,x\r3,4,y\r",
        "\ufeffa,b,label\n1,2.5,x\n3,4,y\n",
        "\n\na,b,label\n\n1,2.5,x\n\n\n3,4,y\n\n",
        '"a","b","label"\n"1","2.5","x"\n"3","4","y"\n',
        "label,a,b\nx,1,2.5\ny, 3,4.0 \n",
    ],
)
def test_spellings_of_the_same_rows(csv_file, read, content):
    table = read(csv_file(content))
    assert table.feature_names == ("a", "b")
    np.testing.assert_array_equal(table.features, [[1, 2.5], [3, 4]])
    assert table.labels.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1", "2"), [1, 2]),
        (("1.0", "2.5"), [1.0, 2.5]),
        ((" 1", "2 "), [1, 2]),
        (("9007199254740993", "-1"), [9007199254740993, -1]),
        (("1", "two"), ["1", "two"]),
        (("0x10", "0x20"), ["0x10", "0x20"]),
        (('"a,b"', '"say ""hi"""'), ["a,b", 'say "hi"']),
    ],
)
def test_labels_are_numbers_where_every_cell_is_one(csv_file, read, cells, expected):
    labels = read(csv_file("a,label\n1,{}\n2,{}\n".format(*cells))).labels
    assert labels.tolist() == expected
    assert not labels.dtype.hasobject


def test_chosen_features_in_the_order_asked_for(csv_file, read):
    path = csv_file("a,note,label,b\n1,p,0,2\n3,q,1,4\n")
    table = read(path, features=("b", "a"))
    assert table.feature_names == ("b", "a")
    np.testing.assert_array_equal(table.features, [[2, 1], [4, 3]])


def test_many_columns(csv_file, read):
    names = [f"c{number}" for number in range(300)]
    table = read(csv_file(",".join([*names, "label"]) + "\n" + ",".join(["7"] * 301) + "\n"))
    assert table.features.shape == (1, 300)


def test_the_first_line_of_data(csv_file, read):
    assert read(csv_file("a,label\n1,0\n2,1\n\n\n")).first_line == 2
    assert read(csv_file('"a\nb",label\n1,0\n2,1\n')).first_line == 3
    assert read(csv_file("a,label\n1,0\n\n2,1\n")).first_line is None
    assert read(csv_file('a,label\n1,"0\n"\n2,1\n')).first_line is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b,label\n1,2,x\n3,y\n", ["line 3", "2 fields", "names 3 fields"]),
        ("a,b,label\n1,2,x\n3,4,5,y\n", ["line 3", "4 fields", "quotes"]),
        ("a,b,label\n1,2,x\n3,tall,y\n", ["line 3", 'column "b"', '"tall"', "must be numbers"]),
        ("a,b,label\n1,2,x\n3,1_000,y\n", ["line 3", 'column "b"', '"1_000"']),
        ("a,b,label\n1,2,x\n3,true,y\n", ["line 3", 'column "b"', '"true"']),
        ('a,b,label\n1,"2\n",x\n3,4,y\n', ["line 2", 'column "b"', "not a number"]),
        ("a,b,label\n1,,x\n3,4,y\n", ["line 2", 'column "b"', "empty"]),
        ("a,b,label\n1,  ,x\n3,4,y\n", ["line 2", 'column "b"', "empty"]),
        ("a,b,label\n1,2,\n3,4,y\n", ["line 2", 'column "label"', "empty"]),
        ('a,b,label\n1,2,""\n3,4,y\n', ["line 2", 'column "label"', "empty"]),
        ('a,note,label\n1,"p\nq",x\n3,4,y\n', ["line 2", 'column "note"', "not a number"]),
        ('"a\nb",c,label\n1,2,"x\ny"\n\n3,oops,z\n', ["line 6", 'column "c"', '"oops"']),
        ('a,c,label\n1,2,"x\ny"\n\n3,inf,z\n', ["line 5", 'column "c"', '"inf"', "finite"]),
        ('a,b,label\n1,2,x\n3,4,"y\n5,6,z\n', ["line 3", "quote"]),
        ("a,b,a,label\n1,2,3,x\n", ['"a"', "once"]),
        ("a,b,labels\n1,2,x\n", ['no column "label"', 'mean "labels"', '"a", "b", "labels"']),
        ("a,,label\n1,2,x\n", ["column 2", "no name", "data.features"]),
        ("label\nx\ny\n", ['"label" is the only column']),
        ("", ["empty", "header"]),
        ("\n\n", ["empty", "header"]),
        ("a,b,label\n", ["header but no rows"]),
        ("a,b,label", ["header but no rows"]),
        (b"a,b,label\n1,2,x\n3,4,\xff\xfe\n", ["line 3", 'column "label"', "UTF-8"]),
        (b"a,b\xff,label\n1,2,x\n", ["line 1", "UTF-8"]),
        ("a,b,label\n1,2,x\n".encode("utf-16"), ["line 1", "UTF-8"]),
        ("a,label\n1," + "x" * 300 + "\n", ['column "label"', "300 characters", "256"]),
        ('a,label\n1,"' + "x\n" * 100_000, ["line 2", "quote"]),
    ],
)
def test_refused(csv_file, refusal, content, expected):
    path = csv_file(content)
    message = refusal(path)
    assert message.startswith(str(path))
    assert [part for part in expected if part not in message] == []


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (("a", "hight"), ['"hight"', 'mean "height"', 'accepted: "a", "height"']),
        (("a", "a"), ["twice", '"a"']),
        (("a", "label"), ['"label"', "is the label"]),
    ],
)
def test_wrong_choice_of_features(csv_file, refusal, features, expected):
    message = refusal(csv_file("a,height,label\n1,2,0\n"), features=features)
    assert [part for part in ["data.features", *expected] if part not in message] == []


def test_bytes_that_are_not_used_may_be_anything(csv_file, read):
    path = csv_file(b"a,note,label\n1,\xff,0\n2,,1\n")
    np.testing.assert_array_equal(read(path, features=("a",)).features, [[1], [2]])


def test_long_lists_of_columns_are_cut(csv_file, refusal):
    assert '"c19" and 30 more' in refusal(csv_file(",".join(f"c{number}" for number in range(50)) + "\n1\n"))
