"""Whether an answer can be believed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.doubts import audited, judge, largest_norm, plausible
from shardsgd.workers.exchange import GradientRequest, Gradients, LeafSeconds

NAN, INF = math.nan, math.inf


def answer(worker=0, norms=(1.0, 4.0, 2.0), losses=(0.5, 0.25)):
    """For two leaves and the node that holds them."""
    nodes = [(0, 2), (0, 1), (1, 2)]
    named = dict(zip(nodes, norms, strict=True))
    return Gradients(GradientRequest(3, 1, 0, 2), worker, {}, named, np.array(losses), LeafSeconds(0, 0, 0))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("place", range(5))
def test_whatever_is_not_finite_shows_wherever_it_is(bad, place):
    numbers = [1.0, 4.0, 2.0, 0.5, 0.25]
    numbers[place] = bad
    assert not math.isfinite(largest_norm(answer(norms=numbers[:3], losses=numbers[3:])))


@pytest.mark.parametrize("norms", [(1.0, 4.0, 2.0), (4.0, 1.0, 2.0), (1.0, 2.0, 4.0), (4.0, 4.0, 4.0)])
def test_the_largest_norm_is_that_of_any_node(norms):
    assert largest_norm(answer(norms=norms)) == 4.0


PLAUSIBLE = {
    "of a first step": (1e30, None, True),
    "like the step before": (1.0, 1.0, True),
    "smaller": (1e-9, 1.0, True),
    "nothing": (0.0, 1.0, True),
    "a leap that may be": (1e4, 1.0, True),
    "a sudden leap": (1.001e4, 1.0, False),
    "not a number": (NAN, 1.0, False),
    "infinite": (INF, 1.0, False),
    "not a number, in a first step": (NAN, None, False),
    "infinite, in a first step": (INF, None, False),
    "after nothing": (0.0, 0.0, True),
}


@pytest.mark.parametrize(("largest", "usual", "expected"), PLAUSIBLE.values(), ids=PLAUSIBLE)
def test_what_is_plausible(largest, usual, expected):
    assert plausible(largest, usual) is expected


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("starts", [[0], [0, 4], [0, 2, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_the_share_that_is_audited_is_about_what_was_asked_for_at_every_place(share, starts):
    for start in starts:
        found = [audited(step, start, share) for step in range(1000)]
        assert sum(found) == pytest.approx(1000 * share, abs=30)
        assert found == [audited(step, start, share) for step in range(1000)]


@given(st.integers(0, 2**40), st.integers(0, 2**20))
def test_all_or_nothing_is_audited_where_that_was_asked_for(step, start):
    assert audited(step, start, 1.0)
    assert not audited(step, start, 0.0)


GOOD, NAN_ANSWER, LEAP = {}, {"norms": (NAN, NAN, NAN)}, {"norms": (1e9, 1e9, 1e9)}
JUDGED = {
    "one that needs to be confirmed": ([GOOD], False, False, []),
    "confirmed": ([GOOD, GOOD], False, True, []),
    "NaN is confirmed by NaN": ([NAN_ANSWER, NAN_ANSWER], False, True, []),
    "a leap is confirmed by the same leap": ([LEAP, LEAP], False, True, []),
    "not confirmed, and neither can be believed": ([NAN_ANSWER, LEAP], False, False, []),
    "not confirmed, but the newest can be believed": ([NAN_ANSWER, GOOD], True, True, [0]),
    "two not confirmed": ([NAN_ANSWER, LEAP, GOOD], True, True, [0, 1]),
    "the third decides for the first": ([GOOD, LEAP, GOOD], False, True, [1]),
    "the third decides for the second": ([LEAP, GOOD, GOOD], False, True, [0]),
    "three of a kind": ([NAN_ANSWER] * 3, False, True, []),
    "the newest is the odd one": ([GOOD, NAN_ANSWER, LEAP], False, False, []),
}


@pytest.mark.parametrize(("kinds", "believed", "accepted", "distrusted"), JUDGED.values(), ids=JUDGED)
def test_judgements(kinds, believed, accepted, distrusted):
    answers = [answer(worker, **kind) for worker, kind in enumerate(kinds)]
    verdict = judge(answers, believed=believed)
    assert verdict.accepted is accepted
    assert {answer.worker for answer in verdict.refuted} == set(distrusted)


def test_a_lone_worker_confirms_itself():
    assert judge([answer(0, **NAN_ANSWER), answer(0, **NAN_ANSWER)], believed=False).accepted


def test_a_worker_does_not_outvote_another_by_answering_twice():
    verdict = judge([answer(0, **LEAP), answer(1, **GOOD), answer(0, **LEAP)], believed=False)
    assert not verdict.accepted
    assert verdict.refuted == ()


def test_a_worker_that_corrects_itself_is_confirmed_by_the_other():
    assert judge([answer(0, **LEAP), answer(1, **GOOD), answer(0, **GOOD)], believed=False).accepted


@pytest.mark.parametrize("place", range(5))
def test_one_bit_of_any_number_makes_another_answer(place):
    numbers = [1.0, 4.0, 2.0, 0.5, 0.25]
    other = list(numbers)
    other[place] = float(np.nextafter(other[place], 9.0))
    answers = [answer(0, numbers[:3], numbers[3:]), answer(1, other[:3], other[3:])]
    assert not judge(answers, believed=False).accepted
