from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.plan import plan


@given(
    st.sets(st.integers(0, 63), min_size=1).map(sorted),
    st.sets(st.integers(0, 20), min_size=1, max_size=12),
)
def test_every_missing_unit_is_planned_once_and_shares_differ_by_at_most_one(units, workers):
    shares = plan([(unit, unit + 1) for unit in units], sorted(workers))
    planned = {worker: [u for start, stop in ranges for u in range(start, stop)] for worker, ranges in shares.items()}
    assert sorted(unit for share in planned.values() for unit in share) == units
    sizes = [len(planned.get(worker, [])) for worker in workers]
    assert max(sizes) - min(sizes) <= 1
    assert all(planned.values()), "a worker without a share is left out"


@given(st.integers(1, 64), st.integers(1, 12))
def test_a_fresh_round_gives_each_worker_one_contiguous_range_in_order(units, workers):
    shares = plan([(0, units)], range(workers))
    assert all(len(ranges) == 1 for ranges in shares.values())
    ends = [ranges[0] for _, ranges in sorted(shares.items())]
    assert [stop for _, stop in ends[:-1]] == [start for start, _ in ends[1:]]


def test_units_lost_by_two_workers_are_shared_among_the_rest():
    assert plan([(0, 2), (6, 8)], [1, 2]) == {1: ((0, 2),), 2: ((6, 8),)}
    assert plan([(0, 2), (6, 8)], [1]) == {1: ((0, 2), (6, 8))}
