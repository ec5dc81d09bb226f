"""Rows of leaves, gathered when asked for or before: always those of the sampling, never in more memory than allowed."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from fakes import ArrayRows, leaf_rows, toy_dataset, toy_spec
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.training import make_problem
from shardsgd.workers import rows as rows_module
from shardsgd.workers.rows import RowBuffers, RowGatherer


class CountedRows(ArrayRows):
    """Rows that count how often they are asked for."""

    asked = 0

    def shard(self, number):
        self.asked += 1
        return super().shard(number)


def job(*, rows=103, size=30, shards=4, sampling="shuffle", precision="float32", regression=False, single=False):
    """A problem and its rows, which are float64 or `single`."""
    dataset = toy_dataset(rows=rows, shards=shards, regression=regression)
    if single:
        dealt = tuple((x.astype(np.float32), y.astype(np.float32) if regression else y) for x, y in dataset.shards)
        dataset = replace(dataset, shards=dealt)
    objective = {"loss": "squared_error"} if regression else {}
    batch = {"size": size, "shards": shards, "sampling": sampling, "precision": precision}
    return make_problem(toy_spec(batch=batch, objective=objective), dataset), dataset


JOBS = {
    "cast": job(),
    "not cast": job(single=True),
    "double": job(precision="float64"),
    "bfloat16": job(precision="bfloat16", single=True),
    "regression": job(regression=True, single=True),
    "replacement": job(sampling="replacement"),
    "one shard": job(rows=20, size=7, shards=1, sampling="replacement", single=True),
    "leaves without rows": job(rows=32, size=30, shards=7),
}


@contextmanager
def room_for(leaves, problem):
    """Within it, memory for so many leaves; yields the list of buffers that are made."""
    made = []

    class Counted(RowBuffers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    # What does not fit whole is not there.
    nbytes = round((leaves + 0.9) * RowBuffers(problem.sampling.leaf_rows, problem).nbytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "_AHEAD_BYTES", nbytes)
        patch.setattr(rows_module, "RowBuffers", Counted)
        yield made


def assert_holds(buffers, problem, dataset, shard, step):
    expected = leaf_rows(problem, dataset, shard, step)
    for array, argument, wanted in zip((buffers.x, buffers.y, buffers.w), buffers.arguments, expected, strict=True):
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert array.tobytes() == wanted.tobytes()
        # What a program would read.
        assert np.asarray(argument).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", JOBS)
def test_leaves_hold_the_rows_of_the_sampling(name):
    """One gatherer for two epochs, so that no leaf keeps a trace of the one before it, nor a short one of a long one."""
    problem, dataset = JOBS[name]
    gatherer, counts = RowGatherer(problem, ArrayRows(dataset)), set()
    for step in range(2 * problem.sampling.steps_per_epoch):
        for shard in range(problem.sampling.shards):
            buffers = gatherer.leaf(shard, step)
            assert_holds(buffers, problem, dataset, shard, step)
            assert buffers.w.sum() == problem.sampling.leaf_count(shard, step)
            counts.add(int(buffers.w.sum()))
    if name == "leaves without rows":
        assert {0, problem.sampling.leaf_rows} < counts
    elif problem.sampling.kind == "shuffle":
        assert len(counts) > 1


calls = st.lists(
    st.tuples(st.sampled_from(["leaf", "ahead"]), st.integers(0, 9), st.integers(0, 3), st.booleans()), max_size=40
)


@pytest.mark.parametrize("name", JOBS)
@given(calls=calls, room=st.integers(0, 9))
def test_any_order_of_calls_gives_the_same_rows_in_the_memory_allowed(name, calls, room):
    """Mostly steps go up, as in a run; sometimes one comes again. A leaf not gathered ahead may take another one's memory."""
    problem, dataset = JOBS[name]
    rows = CountedRows(dataset)
    with room_for(room, problem) as made:
        gatherer = RowGatherer(problem, rows)
        limit = max(1, min(room, problem.sampling.shards))
        kept, perhaps, now = set(), set(), 0
        for kind, shard, step, onward in calls:
            leaf, asked = (shard % problem.sampling.shards, now + step), rows.asked
            now += onward
            if kind == "leaf":
                assert_holds(gatherer.leaf(*leaf), problem, dataset, *leaf)
                if leaf in kept:
                    kept.remove(leaf)
                    assert rows.asked == asked
                else:
                    kept.clear()
                perhaps.discard(leaf)
            else:
                kept, perhaps = ({other for other in some if other[1] == leaf[1]} for some in (kept, perhaps))
                fits = gatherer.gather_ahead(*leaf)
                assert fits or len(perhaps) >= limit
                assert not fits or leaf in kept or len(kept) < limit
                assert rows.asked == asked or leaf not in kept
                if fits:
                    kept.add(leaf)
                    perhaps.add(leaf)
            assert len(made) <= limit


@pytest.mark.parametrize("room", [0, 1, 3, 4, 100])
def test_a_step_is_gathered_ahead_as_far_as_there_is_room(room):
    problem, dataset = JOBS["not cast"]
    rows = CountedRows(dataset)
    with room_for(room, problem) as made:
        gatherer = RowGatherer(problem, rows)
        for step in range(5):
            gathered = [gatherer.gather_ahead(shard, step) for shard in range(4)]
            fits = max(1, min(room, 4))
            assert gathered == [True] * fits + [False] * (4 - fits)
            rows.asked = 0
            for shard in range(4):
                assert_holds(gatherer.leaf(shard, step), problem, dataset, shard, step)
            assert rows.asked == 4 - fits
            assert len(made) == fits


def test_a_leaf_that_was_not_gathered_takes_the_memory_of_one_that_was():
    problem, dataset = JOBS["cast"]
    with room_for(2, problem) as made:
        gatherer = RowGatherer(problem, ArrayRows(dataset))
        assert [gatherer.gather_ahead(shard, 5) for shard in (0, 1, 2)] == [True, True, False]
        for shard in (3, 0, 1, 2):
            assert_holds(gatherer.leaf(shard, 5), problem, dataset, shard, 5)
    assert len(made) == 2


def test_what_was_gathered_for_another_step_makes_room():
    problem, dataset = JOBS["cast"]
    with room_for(2, problem) as made:
        gatherer = RowGatherer(problem, ArrayRows(dataset))
        for step in (1, 2, 1):
            assert [gatherer.gather_ahead(shard, step) for shard in (0, 1, 0, 2)] == [True, True, True, False]
        for shard, step in [(0, 2), (0, 1), (1, 1)]:
            assert_holds(gatherer.leaf(shard, step), problem, dataset, shard, step)
    assert len(made) == 2


def test_gathering_ahead_takes_no_more_than_16_mib_unless_a_leaf_does():
    problem, dataset = job(rows=64, size=64, shards=64)
    gatherer = RowGatherer(problem, ArrayRows(dataset))
    assert all(gatherer.gather_ahead(shard, 0) for shard in range(64))
    wide, dataset = job(rows=8, size=8, shards=4)
    wide = replace(wide, network=replace(wide.network, features=2**20))
    x = np.broadcast_to(np.float32(1), (2, 2**20))
    dataset = replace(dataset, shards=tuple((x, y) for _, y in dataset.shards))
    gatherer = RowGatherer(wide, ArrayRows(dataset))
    # Of 8 MiB and a few bytes each.
    assert [gatherer.gather_ahead(shard, 0) for shard in range(4)] == [True, False, False, False]


def test_masked_rows_are_zeros_of_weight_zero():
    problem, _ = JOBS["cast"]
    buffers = RowBuffers(6, problem)
    assert buffers.nbytes == 6 * 5 * 4 + 6 * 4 + 6 * 4
    for count in (6, 2, 0, 4):
        buffers.x[:], buffers.y[:], buffers.w[:] = 7, 7, 7
        buffers.mask(count)
        assert buffers.w.tolist() == [1] * count + [0] * (6 - count)
        assert np.all(buffers.x[:count] == 7)
        assert np.all(buffers.y[:count] == 7)
        assert not buffers.x[count:].any()
        assert not buffers.y[count:].any()
