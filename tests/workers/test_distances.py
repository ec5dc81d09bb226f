"""Distances of rows' and batches' gradients from g, against gradients computed row by row."""

from itertools import pairwise

import numpy as np
import pytest
from fakes import ArrayRows, toy_dataset, toy_spec
from hypothesis import given
from hypothesis import strategies as st
from measuring import Measured

from shardsgd.model import distances as programs
from shardsgd.model.distances import LARGE_CHUNK, SMALL_CHUNK, batch_chunk, row_chunk
from shardsgd.model.leaf import leaf_program
from shardsgd.model.networks import Network
from shardsgd.model.sampling import drawn_rows
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import BatchDistancesRequest, RowDistancesRequest

ROWS = 700
DATASET = toy_dataset(rows=ROWS, shards=4)
MODELS = {"linear": {"kind": "linear"}, "mlp": {"kind": "mlp", "hidden": [9, 7]}}


@pytest.fixture(scope="module")
def measured():
    made = Measured(toy_spec(batch={"size": 30, "shards": 4, "precision": "float64"}), DATASET)
    made.measurement.gradient()
    return made


@pytest.fixture(scope="module")
def row_gradients(measured):
    """[n, length] flat gradients of all rows as dealt, each from a program of one row."""
    return gradients_of_rows(measured)


def gradients_of_rows(measured):
    program, layout = leaf_program(measured.problem), measured.problem.layout
    parameters = layout.views(measured.theta)
    x, y = measured.rows()
    one = np.ones(1, measured.problem.parameter_dtype)
    flats = np.zeros((len(y), layout.length))
    for row in range(len(y)):
        _, gradient = program(parameters, x[row : row + 1], y[row : row + 1], one)
        for entry in layout.entries:
            flats[row, entry.span] = np.asarray(gradient[entry.name]).ravel()
    return flats


def by_array(layout, flat):
    return [float(np.sum(np.square(flat[entry.span]))) for entry in layout.entries]


def test_g_is_the_mean_of_all_rows_gradients(measured, row_gradients):
    np.testing.assert_allclose(measured.gradient, row_gradients.mean(axis=0), rtol=1e-11, atol=1e-15)


def answer(measured, request, computer=None):
    computer = computer or measured.exchange.computer
    return computer.distances(request, computer.own_parameters(measured.theta), measured.gradient)


def test_row_distances_are_those_of_the_rows(measured, row_gradients):
    layout, shards = measured.problem.layout, measured.problem.sampling.shards
    assert shards == 3
    found = answer(measured, RowDistancesRequest(5, 0, 0, 2, 1)).squared
    assert found.shape == (2, len(layout.entries))
    for unit, shard in enumerate((1, 2)):
        rows = row_gradients[shard::shards] - measured.gradient
        expected = np.sum([by_array(layout, row) for row in rows], axis=0)
        np.testing.assert_allclose(found[unit], expected, rtol=1e-11)


@pytest.mark.parametrize("batch", [1, 2, 15, 16, 17, 63, 64, 65, 255, 256, 257, 400, ROWS])
@pytest.mark.parametrize("replacement", [True, False])
def test_batch_distances_are_those_of_the_rows_that_were_drawn(measured, row_gradients, batch, replacement):
    layout, sampling = measured.problem.layout, measured.problem.sampling
    found = answer(measured, BatchDistancesRequest(5, 0, 1, 3, 4, batch, replacement)).squared
    for unit, repeat in enumerate((5, 6)):
        drawn = drawn_rows(sampling.seed, ROWS, batch, repeat, replacement=replacement)
        expected = by_array(layout, row_gradients[drawn].mean(axis=0) - measured.gradient)
        np.testing.assert_allclose(found[unit], expected, rtol=1e-9, atol=1e-28)


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_and_precision(model, precision):
    spec = toy_spec(model=MODELS[model], batch={"size": 30, "shards": 4, "precision": precision})
    made = Measured(spec, DATASET)
    norms = made.measurement.gradient()
    rows = gradients_of_rows(made)
    close = {"float32": 1e-4, "float64": 1e-11, "bfloat16": 0.1}[precision]
    layout = made.problem.layout
    np.testing.assert_allclose(norms, by_array(layout, rows.mean(axis=0)), rtol=close)
    traces = np.mean([by_array(layout, row - rows.mean(axis=0)) for row in rows], axis=0)
    np.testing.assert_allclose(made.measurement.traces(lambda rows: None), traces, rtol=close)


@given(st.lists(st.integers(0, 40), max_size=5), st.sampled_from([1, 30, 300]), st.booleans())
def test_the_bits_do_not_depend_on_how_repeats_are_asked_for(measured, cuts, batch, replacement):
    """By requests, by rounds, by workers that have computed something else before."""
    whole = answer(measured, BatchDistancesRequest(1, 0, 0, 40, 0, batch, replacement)).squared
    ends = sorted({0, 40, *cuts})
    parts = []
    for number, (start, stop) in enumerate(pairwise(ends)):
        # As units of a round that begins at `first`.
        first = start if number % 2 else 0
        request = BatchDistancesRequest(7, number, start - first, stop - first, first, batch, replacement)
        parts.append(answer(measured, request).squared)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_a_worker_that_has_just_started_gives_the_same_bits(measured):
    fresh = LeafComputer(measured.problem, ArrayRows(measured.dataset))
    for request in (BatchDistancesRequest(1, 0, 0, 9, 0, 65, True), RowDistancesRequest(1, 0, 0, 3, 0)):
        assert answer(measured, request, fresh).squared.tobytes() == answer(measured, request).squared.tobytes()


def test_g_may_lie_in_memory_that_cannot_be_written(measured):
    request = BatchDistancesRequest(1, 0, 0, 2, 0, 3, True)
    theta, g = measured.theta.copy(), measured.gradient.copy()
    theta.flags.writeable = g.flags.writeable = False
    computer = measured.exchange.computer
    found = computer.distances(request, computer.own_parameters(theta), g)
    assert found.squared.tobytes() == answer(measured, request).squared.tobytes()


def test_programs_are_compiled_at_the_first_request_and_never_again(measured):
    computer = LeafComputer(measured.problem, ArrayRows(measured.dataset))
    for request in (
        RowDistancesRequest(1, 0, 0, 1, 2),
        BatchDistancesRequest(1, 0, 0, 1, 0, 1, True),
        BatchDistancesRequest(1, 0, 0, 1, 0, 600, False),
    ):
        answer(measured, request, computer)
        compiled = computer._distance_programs
        assert (compiled.rows._cache_size(), compiled.batch._cache_size()) == (1, 2)


def test_gradients_of_rows_take_some_tens_of_megabytes_whatever_the_model():
    small, large = toy_spec(), toy_spec(model={"kind": "mlp", "hidden": [2000, 2000]})
    sizes = []
    for spec in (small, large):
        problem = Measured(spec, DATASET).problem
        sizes.append(row_chunk(problem))
        assert row_chunk(problem) * problem.layout.nbytes <= programs._ROW_GRADIENT_BYTES
    assert sizes == [256, 2]
    huge = Network(10_000, (), 10_000, "relu").layout(np.dtype(np.float32))
    assert huge.nbytes > programs._ROW_GRADIENT_BYTES
    problem = Measured(small, DATASET).problem
    problem.__dict__["layout"] = huge
    assert row_chunk(problem) == 1


def test_small_batches_do_not_pay_for_large_ones():
    assert [batch_chunk(batch) for batch in (1, 16, 64, 65, 5000)] == [SMALL_CHUNK] * 3 + [LARGE_CHUNK] * 2
