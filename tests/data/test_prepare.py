"""Split, labels, scaling and dealing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.data import Table, prepare
from shardsgd.errors import DataError
from shardsgd.model.sampling import Stream, permutation
from shardsgd.spec import JobSpec


def make_table(features, labels, **fields):
    features = np.asarray(features)
    names = tuple("abcdefgh"[: features.shape[1]])
    return Table(features, np.asarray(labels), names, "train.csv", **fields)


def make_spec(loss="softmax_cross_entropy", seed=0, batch=(), **data):
    spec = JobSpec(
        seed=seed,
        data={"source": "train.csv", **data},
        objective={"loss": loss},
        batch={"size": 2, "shards": 2, **dict(batch)},
    )
    return spec.resolved()


def refusal(table, spec):
    with pytest.raises(DataError) as caught:
        prepare(table, spec)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "train.csv" in message
    return message


@given(
    rows=st.integers(2, 200),
    batch=st.integers(1, 64),
    shards=st.integers(1, 64),
    validation=st.floats(0, 0.95),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_row_is_used_once(rows, batch, shards, validation, seed):
    held_out = round(rows * validation)
    spec = make_spec(
        "squared_error",
        seed,
        {"size": min(batch, max(1, rows - held_out)), "shards": shards},
        validation=validation,
        standardize=False,
    )
    table = make_table(np.arange(rows)[:, np.newaxis], np.arange(rows))
    if validation > 0 and held_out in (0, rows):
        assert "data.validation" in refusal(table, spec)
        return
    dataset = prepare(table, spec)
    pairs = [*dataset.shards, *([dataset.validation] if dataset.validation else [])]
    for x, y in pairs:
        np.testing.assert_array_equal(x[:, 0], y)
    assert sorted(row for _, y in pairs for row in y.tolist()) == list(range(rows))

    sizes = [len(y) for _, y in dataset.shards]
    assert len(sizes) == spec.batch.shards
    assert max(sizes) - min(sizes) <= 1
    assert dataset.rows == sum(sizes) == rows - held_out
    assert (0 if dataset.validation is None else len(dataset.validation[1])) == held_out


def test_the_deal():
    spec = make_spec("squared_error", seed=5, batch={"size": 6, "shards": 3}, validation=0.25, standardize=False)
    dataset = prepare(make_table(np.arange(20)[:, np.newaxis], np.arange(20)), spec)
    order = permutation(5, Stream.SPLIT, 0, 0, 20)
    assert dataset.validation[1].tolist() == order[:5].tolist()
    dealt = order[5:][permutation(5, Stream.DEAL, 0, 0, 15)]
    for number, row in enumerate(dealt):
        assert dataset.shards[number % 3][1][number // 3] == row


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("loss", ["squared_error", "logistic", "softmax_cross_entropy"])
def test_dtypes(loss, precision):
    spec = make_spec(loss, batch={"precision": precision})
    dataset = prepare(make_table(np.arange(20, dtype=np.uint8).reshape(10, 2), np.arange(10) % 2), spec)
    floats = np.float64 if precision == "float64" else np.float32
    for x, y in [*dataset.shards, dataset.validation]:
        assert x.dtype == floats
        assert y.dtype == (floats if loss == "squared_error" else np.int32)
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
        assert x.shape == (len(y), 2)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_standardized_by_the_training_rows(layout):
    features = layout(np.random.default_rng(0).normal(3, 5, (200, 4)))
    dataset = prepare(make_table(features, np.arange(200) % 2), make_spec(batch={"precision": "float64"}))
    x = np.concatenate([x for x, _ in dataset.shards])
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(axis=0), 1)
    held_out = permutation(0, Stream.SPLIT, 0, 0, 200)[:40]
    training = np.delete(features, held_out, axis=0)
    np.testing.assert_allclose(dataset.mean, training.mean(axis=0))
    np.testing.assert_allclose(dataset.scale, training.std(axis=0))
    np.testing.assert_allclose(dataset.validation[0], (features[held_out] - dataset.mean) / dataset.scale)


def test_a_held_out_row_changes_no_training_row():
    features = np.random.default_rng(1).normal(size=(50, 3))
    labels = np.arange(50) % 2
    before = prepare(make_table(features, labels), make_spec())
    features[permutation(0, Stream.SPLIT, 0, 0, 50)[3]] += 1000
    after = prepare(make_table(features, labels), make_spec())
    for (x, _), (others, _) in zip(before.shards, after.shards, strict=True):
        np.testing.assert_array_equal(x, others)
    np.testing.assert_array_equal(before.scale, after.scale)
    assert (before.validation[0] != after.validation[0]).any()
    assert before.fingerprint != after.fingerprint


def test_not_standardized():
    dataset = prepare(make_table([[1], [2], [3]], [0, 1, 0]), make_spec(validation=0, standardize=False))
    assert dataset.mean is None
    assert dataset.scale is None
    assert dataset.validation is None
    assert sorted(float(value) for x, _ in dataset.shards for value in x[:, 0]) == [1, 2, 3]


@pytest.mark.parametrize("value", [0.1, 1e308, 5e-324, -7])
def test_constant_columns_become_zero(value):
    # The mean of 0.1 repeated is not 0.1, nor its deviation 0.
    dataset = prepare(make_table([[value]] * 30, np.arange(30) % 2), make_spec())
    assert dataset.scale.tolist() == [1]
    assert dataset.mean.tolist() == [value]
    assert all((x == 0).all() for x, _ in dataset.shards)


def test_the_fingerprint_is_of_what_is_trained_on():
    features, labels = np.arange(40.0).reshape(20, 2), np.arange(20) % 2

    def fingerprint(features=features, labels=labels, **changes):
        return prepare(make_table(features, labels), make_spec(**changes)).fingerprint

    others = [
        fingerprint(features + np.eye(20, 2)),
        fingerprint(labels=1 - labels),
        fingerprint(labels=np.where(labels, "1", "one")),
        fingerprint(seed=1),
        fingerprint(validation=0),
        fingerprint(standardize=False),
        fingerprint(batch={"precision": "float64"}),
        fingerprint(batch={"shards": 1}),
    ]
    assert len({fingerprint(), *others}) == 1 + len(others)
    assert fingerprint() == fingerprint(batch={"size": 4})
    assert len(fingerprint()) == 64


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["b", "a", "b", "a", "c", "c"], ("a", "b", "c"), [1, 0, 1, 0, 2, 2]),
        ([10, 9, -1, 10, 9, -1], ("-1", "9", "10"), [2, 1, 0, 2, 1, 0]),
        ([1.0, 2.0, 1.0, 2.0, 1.0, 2.0], ("1", "2"), [0, 1, 0, 1, 0, 1]),
        ([True, False, True, False, True, True], ("False", "True"), [1, 0, 1, 0, 1, 1]),
    ],
)
def test_classes_are_numbered_in_order(labels, classes, numbers):
    dataset = prepare(make_table(np.arange(6)[:, np.newaxis], labels), make_spec(validation=0, standardize=False))
    assert dataset.classes == classes
    assert dataset.outputs == len(classes)
    for x, y in dataset.shards:
        assert y.tolist() == [numbers[int(row)] for row in x[:, 0]]


def test_logistic_has_one_output_and_two_classes():
    dataset = prepare(make_table([[1], [2], [3], [4]], ["no", "yes", "no", "yes"]), make_spec("logistic", validation=0))
    assert dataset.outputs == 1
    assert dataset.classes == ("no", "yes")


def test_targets_keep_their_values():
    labels = [0.25, -1.5, 3.0, 1e30]
    dataset = prepare(make_table([[1], [2], [3], [4]], labels), make_spec("squared_error", validation=0))
    assert dataset.classes == ()
    assert dataset.outputs == 1
    assert {float(value) for _, y in dataset.shards for value in y} == {float(np.float32(label)) for label in labels}


@pytest.mark.parametrize(
    ("labels", "loss", "expected"),
    [
        ([3] * 40, "softmax_cross_entropy", ["one class only", '"3"', "at least two"]),
        (["x"] * 40, "logistic", ["one class only", '"x"']),
        (np.linspace(0, 1, 40), "softmax_cross_entropy", ["regression", "squared_error", "fractions"]),
        (np.linspace(0, 1, 40), "logistic", ["regression", "squared_error"]),
        (np.arange(40), "softmax_cross_entropy", ["40 different values in 40 rows", "regression", "squared_error"]),
        (np.arange(40) // 2 * 3, "logistic", ["20 classes", '"logistic" needs exactly 2', "softmax_cross_entropy"]),
        (np.arange(40).astype(str), "softmax_cross_entropy", ["40 different values", "too many", "accepted: at most"]),
        (["x\ny"] * 40, "logistic", ["one class only", r'"x\ny"']),
        (np.where(np.arange(40) % 2, "x", "y"), "squared_error", ["texts", '"y"', "softmax_cross_entropy"]),
    ],
)
def test_labels_of_the_wrong_kind(labels, loss, expected):
    message = refusal(make_table(np.arange(40)[:, np.newaxis], labels), make_spec(loss))
    assert [part for part in expected if part not in message] == []


def test_more_than_a_thousand_classes():
    labels = np.arange(6000) % 1001
    assert "1001 different values" in refusal(make_table(labels[:, np.newaxis], labels), make_spec())
    assert prepare(make_table(labels[:, np.newaxis], labels % 1000), make_spec()).outputs == 1000


def test_one_class_left_after_the_split():
    labels = np.zeros(10, int)
    labels[permutation(0, Stream.SPLIT, 0, 0, 10)[0]] = 1
    message = refusal(make_table(np.arange(10)[:, np.newaxis], labels), make_spec())
    assert "all 8 training rows" in message
    assert '"0"' in message


@pytest.mark.parametrize(
    ("features", "labels", "first_line", "expected"),
    [
        ([[1, 2], [3, np.nan]], [0, 1], None, ["row 1", 'column "b"', "nan", "(1 are not)"]),
        ([[1, 2], [-np.inf, np.nan]], [0, 1], 2, ["line 3", 'column "a"', "-inf", "(2 are not)"]),
        ([[1, 2], [3, 4]], [0, np.inf], 2, ["line 3", "label", "inf"]),
        (np.ones((0, 2)), np.ones(0), None, ["0 rows"]),
        (np.ones((2, 0)), [0, 1], None, ["0 features"]),
    ],
)
def test_values_that_cannot_be_trained_on(features, labels, first_line, expected):
    message = refusal(make_table(features, labels, first_line=first_line), make_spec(validation=0))
    assert [part for part in expected if part not in message] == []


def test_values_too_large():
    labels = [0, 1, 0, 1]
    spec = make_spec(validation=0, standardize=False)
    message = refusal(make_table([[1, 2], [3, 4], [5, -1e39], [7, 8]], labels, first_line=2), spec)
    assert [part for part in ("line 4", 'column "b"', "-1e+39", "float32", "float64") if part not in message] == []
    message = refusal(make_table([[1, 1e308], [3, -1e308], [5, 1e308], [7, 8]], labels), make_spec(validation=0))
    assert [part for part in ('column "b"', "too large to standardize") if part not in message] == []
    message = refusal(make_table([[1], [2], [3], [4]], [0, 1, 1e300, 3]), make_spec("squared_error", validation=0))
    assert [part for part in ("row 2", "label 1e+300", "float32", "float64") if part not in message] == []


def test_fewer_rows_than_the_batch():
    table = make_table(np.arange(150)[:, np.newaxis], np.arange(150) % 3)
    assert refusal(table, make_spec(batch={"size": 256})) == (
        "batch.size = 256: more than the 120 training rows of train.csv "
        "(150 rows, 30 held out by data.validation = 0.2); at most 120"
    )
    assert refusal(table, make_spec(batch={"size": 256}, validation=0)).endswith(
        "training rows of train.csv; at most 150"
    )


@pytest.mark.parametrize(("validation", "part"), [(0.01, "no validation rows"), (0.99, "no training rows")])
def test_a_split_that_leaves_nothing(validation, part):
    message = refusal(make_table(np.arange(10)[:, np.newaxis], np.arange(10) % 2), make_spec(validation=validation))
    assert f"data.validation = {validation}" in message
    assert part in message
    assert "10 rows" in message
