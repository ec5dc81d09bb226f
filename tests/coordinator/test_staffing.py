"""Who works for a job, with a plain number as the clock."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.staffing import (
    Dismiss,
    Fail,
    GiveUp,
    Limits,
    Roster,
    Start,
    going,
    gone,
    joined,
    lost,
    staff,
)

LIMITS = Limits(least=1, most=4, wait_seconds=60.0, losses=None, start_seconds=120.0)


def roster(target, members, starting=(), **changes):
    """Those that start have done so since the time 0."""
    numbers = {"members": frozenset(members), "starting": dict.fromkeys(starting, 0.0)}
    return Roster(target, **numbers | changes)


def brief(decisions):
    return [(type(each).__name__, each.worker) for each in decisions]


def starts(*workers):
    return [("Start", worker) for worker in workers]


WHO = {
    "nothing to do": (roster(2, [0, 1]), []),
    "the lowest free number": (roster(3, [1, 2]), starts(0)),
    "several": (roster(4, [2]), starts(0, 1, 3)),
    "one that starts is one less": (roster(3, [0], starting=[1]), starts(2)),
    "enough are starting": (roster(3, [0], starting=[1, 3]), []),
    "a number of one that goes is not free": (roster(3, [0, 2], going=frozenset([1])), starts(3)),
    "no number is free before it has gone": (roster(4, [0, 2, 3], going=frozenset([1])), []),
    "not before it may be tried again": (roster(2, [0], retry_at=10.5), []),
    "once it may be tried again": (roster(2, [0], retry_at=10.0), starts(1)),
    "the highest numbers go": (roster(2, [0, 1, 2, 3]), [("Dismiss", 2), ("Dismiss", 3)]),
    "the highest of those there are": (roster(1, [0, 3]), [("Dismiss", 3)]),
    "who starts is not one too many yet": (roster(1, [0], starting=[1, 2]), []),
    "too many of which some start": (roster(1, [0, 1], starting=[2]), [("Dismiss", 1)]),
    "no more than the most": (roster(9, [0]), starts(1, 2, 3)),
}


@pytest.mark.parametrize(("who", "expected"), WHO.values(), ids=WHO)
def test_who_starts_and_who_goes(who, expected):
    assert brief(staff(10.0, who, LIMITS)) == expected


@pytest.mark.parametrize(("now", "expected"), [(119.9, []), (120.0, [("GiveUp", 1)]), (500.0, [("GiveUp", 1)])])
def test_a_start_is_given_up_at_its_deadline_and_its_number_not_used_before_it_is_lost(now, expected):
    who = roster(2, [0], starting=[1])
    assert brief(staff(now, who, LIMITS)) == expected
    assert brief(staff(now, lost(who, 1, now, LIMITS, answered=False, notified=False), LIMITS)) == []
    assert brief(staff(now + 0.25, lost(who, 1, now, LIMITS, answered=False, notified=False), LIMITS)) == starts(1)


@pytest.mark.parametrize(("allowed", "losses", "fails"), [(None, 99, False), (2, 2, False), (2, 3, True), (0, 1, True)])
def test_more_losses_than_allowed_fail_the_job(allowed, losses, fails):
    decisions = staff(0.0, roster(1, [], losses=losses), replace(LIMITS, losses=allowed))
    assert isinstance(decisions[0], Fail) is fails
    if fails:
        assert decisions == [Fail(f"{losses} workers were lost; workers.max_losses = {allowed}")]


@pytest.mark.parametrize(("now", "fails"), [(100.0, False), (159.9, False), (160.0, True), (1000.0, True)])
def test_too_few_workers_for_too_long_fail_the_job(now, fails):
    limits = replace(LIMITS, least=2)
    short = lost(roster(3, [0, 1]), 1, 100.0, limits, answered=True, notified=False)
    decisions = staff(now, short, limits)
    if not fails:
        assert brief(decisions) == starts(1, 2)
        return
    (decision,) = decisions
    assert isinstance(decision, Fail)
    for part in ("1 worker", "workers.wait_seconds = 60", "workers.min = 2"):
        assert part in decision.reason


def test_one_that_joins_in_time_ends_the_wait_and_the_next_wait_is_counted_anew():
    limits = replace(LIMITS, least=2)
    short = lost(roster(2, [0, 1]), 1, 0.0, limits, answered=True, notified=False)
    again = joined(replace(short, starting={1: 0.0}), 1, 59.0, limits)
    assert again.short_since is None
    assert staff(1000.0, again, limits) == []
    short_again = going(again, 0, 1000.0, limits)
    assert short_again.short_since == 1000.0
    assert not isinstance(staff(1059.0, short_again, limits)[0], Fail)


def test_one_that_joins_where_two_are_missing_does_not_end_the_wait():
    limits = replace(LIMITS, least=2)
    short = roster(2, [], starting=[0], short_since=5.0)
    assert joined(short, 0, 30.0, limits).short_since == 5.0


def test_the_wait_is_counted_from_the_first_loss():
    limits = replace(LIMITS, least=2)
    short = lost(roster(2, [0, 1]), 1, 7.0, limits, answered=True, notified=False)
    assert lost(short, 0, 20.0, limits, answered=True, notified=False).short_since == 7.0


PAUSES = {
    "one that had answered is replaced at once": ([True], [0.0]),
    "one that had not, after a moment": ([False], [0.25]),
    "each that follows, after twice the time": ([False] * 7, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
    "never after more than half a minute": ([False] * 10, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]),
    "one that had answered starts it anew": ([False, False, True, False], [0.25, 0.5, 0.0, 0.25]),
}


@pytest.mark.parametrize(("answered", "pauses"), PAUSES.values(), ids=PAUSES)
def test_a_worker_is_replaced_after_a_pause_that_doubles_while_they_die_before_they_answer(answered, pauses):
    who, now = roster(2, [0, 1]), 1000.0
    for each, pause in zip(answered, pauses, strict=True):
        who = lost(who, 1, now, LIMITS, answered=each, notified=False)
        if pause:
            assert staff(now + pause - 0.01, who, LIMITS) == []
        assert brief(staff(now + pause, who, LIMITS)) == starts(1)
        now += 100.0
        who = joined(replace(who, starting={1: now}), 1, now, LIMITS)


def test_any_number_of_failures_is_counted():
    who = roster(1, [], failures=5000)
    assert lost(who, 0, 0.0, LIMITS, answered=False, notified=False).retry_at == 30.0


def test_a_loss_does_not_shorten_the_pause_of_another():
    who = roster(2, [], starting=[0, 1])
    for _ in range(5):
        who = lost(who, 1, 0.0, LIMITS, answered=False, notified=False)
    assert lost(who, 0, 1.0, LIMITS, answered=True, notified=False).retry_at == 4.0


def test_notice_is_no_failure_and_no_loss():
    before = replace(roster(2, [0, 1]), failures=2)
    noticed = going(before, 1, 5.0, LIMITS)
    assert (noticed.members, noticed.going) == ({0}, {1})
    assert brief(staff(5.0, noticed, LIMITS)) == starts(2)
    for after in (
        gone(noticed, 1),
        lost(noticed, 1, 6.0, LIMITS, answered=True, notified=True),
        lost(noticed, 1, 6.0, LIMITS, answered=False, notified=True),
    ):
        assert (after.losses, after.failures, after.going) == (0, 2, frozenset())
        assert brief(staff(10.0, after, LIMITS)) == starts(1)


def test_who_is_killed_is_lost_once_it_is_dead():
    killed = going(roster(2, [0, 1]), 1, 5.0, LIMITS)
    assert killed.losses == 0
    dead = lost(killed, 1, 6.0, LIMITS, answered=True, notified=False)
    assert (dead.losses, dead.going, dead.members) == (1, frozenset(), {0})


def test_a_start_that_fails_is_a_failure():
    after = lost(roster(2, [0], starting=[1]), 1, 0.0, LIMITS, answered=False, notified=False)
    assert (after.failures, after.starting, after.members) == (1, {}, {0})


@pytest.mark.parametrize("worker", [1, 2, 3])
def test_only_members_can_be_going(worker):
    who = roster(2, [0], starting=[1], going=frozenset([2]))
    assert going(who, worker, 0.0, LIMITS) is who


def test_it_is_settled_when_nobody_comes_goes_or_is_missing():
    assert roster(2, [0, 1]).settled
    assert not roster(2, [0]).settled
    assert not roster(1, [0, 1]).settled
    assert not roster(2, [0, 1], starting=[2]).settled
    assert not roster(2, [0, 1], going=frozenset([2])).settled


def perform(who, decisions, now):
    """All that is decided succeeds at once."""
    for decision in decisions:
        match decision:
            case Start(worker):
                assert worker not in who.members | who.starting.keys() | who.going
                assert 0 <= worker < LIMITS.most
                who = replace(who, starting={**who.starting, worker: now})
            case Dismiss(worker):
                who = gone(going(who, worker, now, LIMITS), worker)
            case GiveUp(worker):
                who = lost(who, worker, now, LIMITS, answered=False, notified=False)
            case Fail(reason):
                raise AssertionError(reason)
    return who


@st.composite
def rosters(draw):
    """Any split of the numbers into members, those that start and those that go."""
    roles = draw(st.lists(st.sampled_from(["member", "starting", "going", "none"]), min_size=4, max_size=4))
    numbers = {role: frozenset(n for n, other in enumerate(roles) if other == role) for role in set(roles)}
    return roster(
        draw(st.integers(1, 4)),
        numbers.get("member", frozenset()),
        numbers.get("starting", ()),
        going=numbers.get("going", frozenset()),
        failures=draw(st.integers(0, 9)),
        retry_at=draw(st.sampled_from([0.0, 5.0])),
    )


@given(rosters(), st.permutations([1, 4, 2, 3, 1]), st.booleans())
def test_from_any_roster_all_become_as_many_as_are_wanted(who, targets, all_at_once):
    now = 10.0
    for target in targets:
        who = replace(who, target=target)
        for _ in range(12):
            who = perform(who, staff(now, who, LIMITS), now)
            assert len(who.members | who.starting.keys() | who.going) <= LIMITS.most
            for worker in sorted(who.starting)[: None if all_at_once else 1]:
                who = joined(who, worker, now, LIMITS)
            for worker in sorted(who.going):
                who = gone(who, worker)
            now += 0.5
        assert who.settled
        assert staff(now, who, LIMITS) == []
