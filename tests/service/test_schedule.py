"""Which jobs begin: cases by hand, and what holds for any queue."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.service.schedule import Running, Waiting, next_jobs, queue_position


def queue(*jobs):
    """Waiting jobs a, b, c, … of (workers, owner="o", priority=0), in order of acceptance."""
    filled = [(*job, *("o", 0)[len(job) - 1 :]) for job in jobs]
    return [
        Waiting("abcdefgh"[i], owner, priority, float(i), workers)
        for i, (workers, owner, priority) in enumerate(filled)
    ]


def names(jobs):
    return "".join(job.job_id for job in jobs)


# waiting, running (workers, owner), capacity, per owner, who begins
CASES = {
    "nobody waits": (queue(), [], 4, None, ""),
    "first in, first out": (queue((1,), (1,), (1,)), [], 2, None, "ab"),
    "higher priorities first": (queue((1,), (1, "o", 2), (1, "o", -1), (1, "o", 2)), [], 3, None, "bda"),
    "what runs counts": (queue((2,), (1,)), [(3, "p")], 4, None, ""),
    "a wide job is not overtaken": (queue((1,), (4,), (1,)), [(1, "p")], 4, None, "a"),
    "not even by a higher limit": (queue((4,), (1, "p")), [(1, "q")], 4, 4, ""),
    "an owner's limit holds back that owner only": (queue((1,), (1,), (1, "p")), [(1, "o")], 4, 2, "ac"),
    "and that owner's narrower jobs": (queue((2,), (1,), (1, "p")), [(1, "o")], 4, 2, "c"),
    "held back by both, it blocks nobody else": (queue((3,), (1, "p")), [(2, "o")], 4, 3, "b"),
    "wider than the service": (queue((5,), (1,)), [], 4, None, "b"),
    "wider than an owner may": (queue((3,), (2,)), [], 4, 2, "b"),
    "more in use than there is": (queue((1,)), [(9, "p")], 4, None, ""),
}


@pytest.mark.parametrize(("waiting", "running", "capacity", "per_owner", "expected"), CASES.values(), ids=CASES)
def test_who_begins(waiting, running, capacity, per_owner, expected):
    now = [Running(f"r{i}", owner, workers) for i, (workers, owner) in enumerate(running)]
    assert names(next_jobs(waiting, now, capacity=capacity, per_owner=per_owner)) == expected


def test_how_many_come_before():
    waiting = queue((1,), (1, "o", 2), (9,))
    assert [queue_position(name, waiting) for name in "abcx"] == [1, 0, 2, None]


@st.composite
def situations(draw):
    """A queue, what runs, a capacity that this fits into, and a limit that it keeps to."""
    capacity = draw(st.integers(1, 8))
    per_owner = draw(st.none() | st.integers(1, 8))
    waiting = [
        Waiting(
            f"w{i}", draw(st.sampled_from("pqr")), draw(st.integers(-1, 1)), float(draw(st.integers(0, 3))), workers
        )
        for i, workers in enumerate(draw(st.lists(st.integers(1, 9), max_size=10)))
    ]
    running, free, held = [], capacity, Counter()
    for i, workers in enumerate(draw(st.lists(st.integers(1, 4), max_size=4))):
        owner = draw(st.sampled_from("pqr"))
        if workers <= free and (per_owner is None or held[owner] + workers <= per_owner):
            running.append(Running(f"r{i}", owner, workers))
            free -= workers
            held[owner] += workers
    return waiting, running, capacity, per_owner


@given(situations(), st.randoms(use_true_random=False))
def test_limits_hold_and_nobody_is_passed_over_without_a_reason(situation, shuffled):
    waiting, running, capacity, per_owner = situation
    begin = next_jobs(waiting, running, capacity=capacity, per_owner=per_owner)
    held = Counter()
    for job in [*running, *begin]:
        held[job.owner] += job.workers
    assert held.total() <= capacity
    assert per_owner is None or all(workers <= per_owner for workers in held.values())

    order = sorted(waiting, key=lambda job: queue_position(job.job_id, waiting))
    assert [job for job in order if job in begin] == begin
    limit = capacity if per_owner is None else min(capacity, per_owner)
    overtaken = order[: order.index(begin[-1])] if begin else []
    passed_over = [job for job in overtaken if job not in begin and job.workers <= limit]
    for owner in {job.owner for job in passed_over}:
        # Its limit holds back the first of them; that one holds back the others.
        first = next(job for job in passed_over if job.owner == owner)
        assert per_owner is not None
        assert held[owner] + first.workers > per_owner
        assert all(order.index(job) < order.index(first) for job in begin if job.owner == owner)

    # It is settled: nobody more begins, and the order in which one asks does not matter.
    left = [job for job in waiting if job not in begin]
    now = running + [Running(job.job_id, job.owner, job.workers) for job in begin]
    assert next_jobs(left, now, capacity=capacity, per_owner=per_owner) == []
    shuffled.shuffle(waiting)
    assert next_jobs(waiting, running, capacity=capacity, per_owner=per_owner) == begin


@given(situations())
def test_nobody_starves_while_narrow_newer_jobs_keep_coming(situation):
    waiting, running, capacity, per_owner = situation
    limit = capacity if per_owner is None else min(capacity, per_owner)
    patient = {job.job_id for job in waiting if job.workers <= limit}
    # The first in line waits for at most 8 running jobs of its owner, then for at most 8 others; there are at most 10 in line.
    for moment in range(160):
        begin = next_jobs(waiting, running, capacity=capacity, per_owner=per_owner)
        patient -= {job.job_id for job in begin}
        if not patient:
            break
        waiting = [job for job in waiting if job not in begin]
        waiting += [Waiting(f"n{moment}{owner}", owner, -1, 100.0 + moment, 1) for owner in "pqr"]
        # The one that has run longest ends.
        running = (running + [Running(job.job_id, job.owner, job.workers) for job in begin])[1:]
    assert not patient
