from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardsgd.coordinator.plan import Again, Ask, Asked, Kill, Patience, RoundState, decide, plan

PATIENCE = Patience(hang_seconds=5.0, late_seconds=0.05, first_seconds=60.0)
USUAL = 0.001


def under_way(worker, start, stop, at=0.0, **changes):
    return Asked(worker, start, stop, at, **{"queue": stop - start} | changes)


def older(worker, at=0.0):
    return under_way(worker, 0, 4, at, current=False)


def a_round(*asked, done=(), again=(), usual=USUAL, repeatable=True, begins=False):
    """Of 8 units."""
    return RoundState(8, set(done), asked, again, usual, repeatable, begins)


def brief(decisions):
    """(worker, start, stop) for who is asked, ("kill", worker) for who is killed."""
    return [
        ("kill", each.worker) if isinstance(each, Kill) else (each.worker, each.start, each.stop) for each in decisions
    ]


FRESH = {
    "one worker gets everything": ([0], a_round(begins=True), [(0, 0, 8)]),
    "three workers share": ([0, 1, 2], a_round(begins=True), [(0, 0, 3), (1, 3, 6), (2, 6, 8)]),
    "numbers need not be the first": ([4, 7], a_round(begins=True), [(4, 0, 4), (7, 4, 8)]),
    "more workers than units": (range(10), a_round(begins=True), [(worker, worker, worker + 1) for worker in range(8)]),
    "who is busy with an older round gets nothing": (
        [0, 1, 2],
        a_round(older(1), begins=True),
        [(0, 0, 4), (2, 4, 8)],
    ),
    "unless all are": ([0, 1], a_round(older(0), older(1), begins=True), [(0, 0, 4), (1, 4, 8)]),
    "who hangs in an older round is killed, and gets nothing": (
        [0, 1],
        a_round(older(0, at=-5), begins=True),
        [("kill", 0), (1, 0, 8)],
    ),
    "nobody is left": ([], a_round(begins=True), []),
    "nobody is left but one that hangs": ([0], a_round(older(0, at=-5), begins=True), [("kill", 0)]),
}
LOST = {
    "all is well": ([0, 1], a_round(under_way(0, 0, 4), under_way(1, 4, 8)), []),
    "a range is shared by the busy where nobody is idle": (
        [0, 2],
        a_round(under_way(0, 0, 3), under_way(2, 6, 8)),
        [(0, 3, 5), (2, 5, 6)],
    ),
    "a range goes to the idle": ([0, 2], a_round(under_way(2, 6, 8), done=range(3)), [(0, 3, 6)]),
    "a range goes to one that has just joined": (
        [0, 1, 2],
        a_round(under_way(0, 0, 3), under_way(2, 6, 8)),
        [(1, 3, 6)],
    ),
    "two ranges go to one": ([0], a_round(under_way(0, 2, 4), done=[4, 5]), [(0, 0, 2), (0, 6, 8)]),
    "two ranges are shared": ([0, 1], a_round(done=[2, 3, 4]), [(0, 0, 2), (0, 5, 6), (1, 6, 8)]),
    "nobody is left to take them": ([], a_round(done=[2, 3, 4]), []),
    "blocks of an update": (
        [0, 2],
        a_round(under_way(0, 0, 3), done=[6, 7], repeatable=False),
        [(2, 3, 6)],
    ),
    "what an older request holds is not under way": (
        [0, 1],
        a_round(older(0), under_way(1, 4, 8)),
        [(0, 0, 2), (1, 2, 4)],
    ),
}
HUNG = {
    "its units go to others at once": (
        [0, 1],
        a_round(under_way(0, 0, 4, at=-5), under_way(1, 4, 8, at=-4.9)),
        [("kill", 0), (1, 0, 4)],
    ),
    "once: others have them already": (
        [1],
        a_round(under_way(0, 0, 4, at=-6), under_way(1, 0, 4), under_way(1, 4, 8)),
        [("kill", 0)],
    ),
    "its blocks wait until it is dead": (
        [0, 1],
        a_round(under_way(0, 0, 4, at=-5), under_way(1, 4, 8), repeatable=False),
        [("kill", 0)],
    ),
    "its blocks wait though another is idle": (
        [0, 1],
        a_round(under_way(0, 0, 4, at=-5), done=range(4, 8), repeatable=False),
        [("kill", 0)],
    ),
    "two at a time": (
        [0, 1, 2],
        a_round(under_way(0, 0, 3, at=-5), under_way(1, 3, 6, at=-7), done=[6, 7]),
        [("kill", 0), ("kill", 1), (2, 0, 6)],
    ),
    "all": ([0, 1], a_round(under_way(0, 0, 4, at=-5), under_way(1, 4, 8, at=-5)), [("kill", 0), ("kill", 1)]),
    "all, and something is to be checked": (
        [0],
        a_round(under_way(0, 0, 4, at=-5), done=range(4, 8), again=[Again(4, 8, (1,))]),
        [("kill", 0)],
    ),
    "one that was given notice": ([0], a_round(under_way(1, 0, 8, at=-5)), [("kill", 1), (0, 0, 8)]),
    "twice over is killed once": (
        [0, 1],
        a_round(under_way(0, 0, 2, at=-6), under_way(0, 2, 4, at=-5), done=range(4, 8)),
        [("kill", 0), (1, 0, 4)],
    ),
    "with a lost range": (
        [0, 1, 2],
        a_round(under_way(0, 0, 2, at=-5), under_way(1, 4, 8)),
        [("kill", 0), (2, 0, 4)],
    ),
}
LATE = {
    "not yet": ([0, 1], a_round(under_way(0, 0, 4, at=-0.049), done=range(4, 8)), []),
    "an idle worker gets it too": ([0, 1], a_round(under_way(0, 0, 4, at=-0.05), done=range(4, 8)), [(1, 0, 4)]),
    "several split it": (
        [0, 1, 2, 3],
        a_round(under_way(0, 0, 4, at=-1), done=range(4, 8)),
        [(1, 0, 2), (2, 2, 3), (3, 3, 4)],
    ),
    "nobody is idle": ([0, 1], a_round(under_way(0, 0, 4, at=-1), under_way(1, 4, 8)), []),
    "who is busy with an older round is not idle": (
        [0, 1],
        a_round(under_way(0, 0, 4, at=-1), older(1), done=range(4, 8)),
        [],
    ),
    "once": ([0, 1, 2], a_round(under_way(0, 0, 4, at=-1), under_way(1, 0, 4), done=range(4, 8)), []),
    "nor is the second one duplicated": (
        [0, 1, 2],
        a_round(under_way(0, 0, 4, at=-2), under_way(1, 0, 4, at=-1), done=range(4, 8)),
        [],
    ),
    "two of them, for three idle": (
        [0, 1, 2, 3, 4],
        a_round(under_way(0, 0, 2, at=-1), under_way(1, 2, 4, at=-1), done=range(4, 8)),
        [(2, 0, 1), (3, 1, 2), (4, 2, 4)],
    ),
    "two of them, for one idle": (
        [0, 1, 2],
        a_round(under_way(0, 0, 2, at=-1), under_way(1, 2, 4, at=-1), done=range(4, 8)),
        [(2, 0, 2)],
    ),
    "never the blocks of an update": (
        [0, 1],
        a_round(under_way(0, 0, 4, at=-1), done=range(4, 8), repeatable=False),
        [],
    ),
    "of a worker that is leaving": ([1], a_round(under_way(0, 0, 4, at=-1), done=range(4, 8)), [(1, 0, 4)]),
    "not what others have answered meanwhile": (
        [0, 1],
        a_round(under_way(0, 0, 4, at=-1), done=[0, 1, 4, 5, 6, 7]),
        [(1, 2, 4)],
    ),
    "not what others are asked for just now": (
        [0, 1, 2],
        a_round(under_way(0, 0, 4, at=-1), done=[4, 5]),
        [(1, 6, 7), (2, 7, 8)],
    ),
}
AGAIN = {
    "somebody else": ([0, 1], a_round(done=range(8), again=[Again(0, 4, (0,))]), [(1, 0, 4)]),
    "somebody else who is idle": (
        [0, 1, 2],
        a_round(under_way(0, 4, 8), done=range(4), again=[Again(0, 4, (1,))]),
        [(2, 0, 4)],
    ),
    "somebody else who is busy, rather than the same": (
        [0, 1],
        a_round(under_way(0, 4, 8), done=range(4), again=[Again(0, 4, (1,))]),
        [(0, 0, 4)],
    ),
    "the same, if there is nobody else": ([1], a_round(done=range(8), again=[Again(0, 8, (1,))]), [(1, 0, 8)]),
    "the same, if all have tried": ([0, 1], a_round(done=range(8), again=[Again(0, 8, (0, 1))]), [(0, 0, 8)]),
    "not beside a part of it": (
        [0, 1],
        a_round(done=range(8), again=[Again(0, 8, (0,)), Again(0, 4, (1,))]),
        [(1, 0, 8)],
    ),
    "who has tried least often": ([0, 1], a_round(done=range(8), again=[Again(0, 8, (0, 1, 0))]), [(1, 0, 8)]),
    "two by different workers": (
        [0, 1, 2],
        a_round(done=range(8), again=[Again(0, 4, (0,)), Again(4, 8, (0,))]),
        [(1, 0, 4), (2, 4, 8)],
    ),
    "each other's": (
        [0, 1],
        a_round(done=range(8), again=[Again(0, 4, (0,)), Again(4, 8, (1,))]),
        [(1, 0, 4), (0, 4, 8)],
    ),
    "blocks of an update": (
        [0, 1],
        a_round(under_way(0, 4, 8), done=range(4), again=[Again(0, 4, (1,))], repeatable=False),
        [(0, 0, 4)],
    ),
    "and a lost range, by different workers": (
        [0, 1, 2],
        a_round(done=range(2, 8), again=[Again(4, 8, (0,))]),
        [(0, 0, 1), (1, 1, 2), (2, 4, 8)],
    ),
    "and a late range": (
        [0, 1, 2],
        a_round(under_way(0, 0, 4, at=-1), done=range(4, 8), again=[Again(4, 8, (1,))]),
        [(2, 4, 8), (1, 0, 4)],
    ),
}
CASES = [
    pytest.param(*case, id=f"{what}: {name}")
    for what, table in {"fresh": FRESH, "lost": LOST, "hung": HUNG, "late": LATE, "again": AGAIN}.items()
    for name, case in table.items()
]


@pytest.mark.parametrize(("members", "state", "expected"), CASES)
def test_decisions(members, state, expected):
    assert brief(decide(0.0, members, state, PATIENCE)) == expected


DEADLINES = {
    "as usual": (under_way(0, 0, 4), USUAL, 5.0),
    "slow leaves": (under_way(0, 0, 4), 0.25, 10 * 0.25 * 4),
    "a long queue": (under_way(0, 0, 4, queue=100), 0.25, 10 * 0.25 * 100),
    "nothing is usual yet": (under_way(0, 0, 4), None, 60.0),
    "its first evaluation": (under_way(0, 0, 4, first=True), USUAL, 60.0),
    "an older request": (under_way(0, 0, 4, current=False), 0.25, 10 * 0.25 * 4),
}


@pytest.mark.parametrize(("asked", "usual", "deadline"), DEADLINES.values(), ids=DEADLINES)
def test_a_worker_hangs_from_its_deadline_on_and_not_before(asked, usual, deadline):
    state = a_round(asked, done=range(4, 8), usual=usual, repeatable=False)
    for waited, hangs in ((deadline - 0.01, False), (deadline, True), (deadline + 100, True)):
        assert (("kill", 0) in brief(decide(waited, [0, 1], state, PATIENCE))) is hangs


def test_the_first_answer_may_take_no_less_than_any_other():
    patience = replace(PATIENCE, hang_seconds=100.0)
    state = a_round(under_way(0, 0, 8), usual=None, repeatable=False)
    assert decide(99.0, [0], state, patience) == []
    assert brief(decide(100.0, [0], state, patience)) == [("kill", 0)]


@pytest.mark.parametrize(
    ("usual", "late"), [(USUAL, 0.05), (0.25, 4 * 0.25 * 4), (None, 5.0)], ids=["usual", "slow", "unknown"]
)
def test_a_share_is_late_from_its_time_on_and_not_before(usual, late):
    state = a_round(under_way(0, 0, 4), done=range(4, 8), usual=usual)
    for waited, expected in ((late - 0.01, []), (late, [(1, 0, 4)])):
        assert brief(decide(waited, [0, 1], state, PATIENCE)) == expected


def test_decisions_say_why():
    assert decide(0.0, [0], a_round(begins=True), PATIENCE) == [Ask(0, 0, 8)]
    state = a_round(under_way(0, 0, 2, at=-5), under_way(1, 2, 4, at=-1), done=range(4, 8), again=[Again(6, 8, (4, 1))])
    assert decide(0.0, [0, 1, 2, 3, 5, 6], state, PATIENCE) == [
        Kill(0, "no answer for 5 s"),
        Ask(2, 0, 1, "nobody computes them", repeats=True),
        Ask(3, 1, 2, "nobody computes them", repeats=True),
        Ask(5, 6, 8, "worker 1 has to be checked", repeats=True),
        Ask(6, 2, 4, "worker 1 is late", repeats=True),
    ]


@st.composite
def states(draw):
    """Any state that a round can be in, and more: overlapping requests, of any age, by members and others."""
    units = draw(st.integers(1, 8))
    spans = st.tuples(st.integers(0, units - 1), st.integers(1, units)).map(lambda s: (s[0], max(s[0] + 1, s[1])))
    repeatable = draw(st.booleans())
    asked, again, done = [], [], draw(st.sets(st.integers(0, units - 1)))
    for start, stop in draw(st.lists(spans, max_size=3)):
        by = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
        again.append(Again(start, stop, tuple(by)))
        done |= set(range(start, stop))
    for start, stop in draw(st.lists(spans, max_size=5)):
        current = draw(st.booleans())
        taken = {unit for other in asked if other.current for unit in range(other.start, other.stop)} | done
        if current and not repeatable and not taken.isdisjoint(range(start, stop)):
            continue
        at = draw(st.sampled_from([0.0, 94.9, 95.0, 99.0, 99.99, 100.0]))
        asked.append(under_way(draw(st.integers(0, 5)), start, stop, at, current=current, first=draw(st.booleans())))
    usual = draw(st.sampled_from([None, 0.001, 1.0]))
    return RoundState(units, done, asked, again, usual, repeatable)


NOW = 100.0
members_of_a_round = st.sets(st.integers(0, 5))
many_states = settings(max_examples=300)


def spanned(ranges):
    return Counter(unit for each in ranges for unit in range(each.start, each.stop))


def split(members, state):
    """Who is killed, who is asked, who can be asked, and the units that nobody is at or will answer."""
    decisions = decide(NOW, members, state, PATIENCE)
    kills = [each.worker for each in decisions if isinstance(each, Kill)]
    asks = [each for each in decisions if isinstance(each, Ask)]
    held = spanned(a for a in state.asked if a.current and not (state.repeatable and a.worker in kills))
    missing = set(range(state.units)) - set(state.done) - held.keys()
    return kills, asks, members - set(kills), missing


@many_states
@given(members_of_a_round, states())
def test_only_members_that_do_not_hang_are_asked(members, state):
    kills, asks, able, _ = split(members, state)
    assert {ask.worker for ask in asks} <= able
    assert len(set(kills)) == len(kills)
    assert set(kills) <= {asked.worker for asked in state.asked}


@many_states
@given(members_of_a_round, states())
def test_what_nobody_is_at_is_asked_for_exactly_once_if_anybody_is_able(members, state):
    _, asks, able, missing = split(members, state)
    asked = spanned(asks)
    assert all(asked[unit] == bool(able) for unit in missing)


@many_states
@given(members_of_a_round, states())
def test_what_is_to_be_computed_again_is_and_nothing_else_twice(members, state):
    kills, asks, able, _ = split(members, state)
    again = [Again(ask.start, ask.stop, ()) for ask in asks if "checked" in ask.reason]
    # Not beside a part of it that somebody is at, or will be.
    awaited = [asked for asked in state.asked if asked.current and not (state.repeatable and asked.worker in kills)]
    free = []
    for each in state.again:
        if not any(other.start < each.stop and each.start < other.stop for other in [*awaited, *free]):
            free.append(each)
    assert spanned(again) == (spanned(free) if able else Counter())
    assert all(count == 1 for count in (spanned(asks) - spanned(again)).values())


@many_states
@given(members_of_a_round, states())
def test_what_two_may_not_compute_at_a_time_they_do_not(members, state):
    _, asks, _, _ = split(members, state)
    if not state.repeatable:
        held = spanned(asked for asked in state.asked if asked.current)
        assert spanned(ask for ask in asks if "checked" not in ask.reason).keys().isdisjoint(held)


@many_states
@given(members_of_a_round, states())
def test_what_is_answered_is_not_asked_for_unless_it_is_in_doubt(members, state):
    _, asks, _, _ = split(members, state)
    certain = set(state.done) - spanned(state.again).keys()
    assert spanned(asks).keys().isdisjoint(certain)


@many_states
@given(members_of_a_round, states(), st.randoms(use_true_random=False))
def test_decisions_depend_on_nothing_but_the_state(members, state, random):
    shuffled = list(members)
    random.shuffle(shuffled)
    assert decide(NOW, shuffled, state, PATIENCE) == decide(NOW, members, state, PATIENCE)


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
