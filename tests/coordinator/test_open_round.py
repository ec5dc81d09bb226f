"""What a round has got so far, with answers that nobody computed."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardsgd.coordinator.doubts import MOST_ANSWERS
from shardsgd.coordinator.open_round import OpenRound
from shardsgd.coordinator.plan import Again, Asked, Kill, Patience, RoundState, decide
from shardsgd.errors import JobError, LeafError
from shardsgd.workers.exchange import GradientRequest, Gradients, LeafSeconds, RequestFailed, UpdateRequest, Updates

NAN = math.nan


def asked(start, stop, step=1):
    return GradientRequest(step, 1, start, stop)


def answer(worker, start, stop, norm=1.0, loss=1.0):
    losses = np.full(stop - start, loss)
    return Gradients(asked(start, stop), worker, {}, {(start, stop): norm}, losses, LeafSeconds(0, 0, 0))


def failure(worker, start, stop, error="ZeroDivisionError"):
    return RequestFailed(worker, asked(start, stop), f"Traceback:\n{error}")


def a_round(units=4, usual=1.0, verify=0.0):
    return OpenRound(units, usual, verify)


def units_of(opened):
    return sorted(unit for reply in opened.replies for unit in range(reply.request.start, reply.request.stop))


def test_a_round_is_complete_once_every_unit_is_answered():
    opened = a_round()
    assert opened.answer(answer(0, 0, 2))
    assert not opened.complete
    assert opened.answer(answer(1, 2, 4))
    assert opened.complete
    assert not opened.doubtful
    assert units_of(opened) == [0, 1, 2, 3]


@pytest.mark.parametrize("late", [(0, 2), (0, 4), (1, 3), (0, 1)])
def test_an_answer_for_what_is_answered_is_not_wanted(late):
    opened = a_round()
    first = answer(0, 0, 2)
    opened.answer(first)
    assert not opened.answer(answer(1, *late))
    assert opened.replies == [first]
    assert opened.answered == {0, 1}


def test_of_a_duplicate_in_two_parts_one_part_is_enough_to_make_the_whole_unwanted():
    opened = a_round()
    opened.answer(answer(1, 0, 2))
    assert not opened.answer(answer(0, 0, 4))
    assert opened.answered == {0, 1}, "the other part will be planned afresh"
    assert opened.answer(answer(2, 2, 4))
    assert opened.complete


def test_the_whole_makes_both_parts_of_its_duplicate_unwanted():
    opened = a_round()
    assert opened.answer(answer(0, 0, 4))
    assert not opened.answer(answer(1, 0, 2))
    assert not opened.answer(answer(2, 2, 4))
    assert units_of(opened) == [0, 1, 2, 3]


def test_what_is_left_of_a_doubtful_range_is_planned_afresh_when_others_have_answered_a_part():
    opened = a_round()
    opened.answer(answer(0, 0, 4, norm=NAN))
    assert opened.answered == {0, 1, 2, 3}
    opened.answer(answer(1, 0, 2))
    assert opened.answered == {0, 1}
    assert opened.again() == []
    opened.answer(answer(1, 2, 4))
    assert opened.complete
    assert opened.distrusted == []


def test_what_is_left_of_a_failed_range_is_planned_afresh_when_others_have_answered_a_part():
    opened = a_round()
    opened.fail(failure(0, 0, 4))
    opened.answer(answer(1, 0, 2))
    assert opened.answered == {0, 1}
    assert opened.again() == []
    assert opened.distrusted == []


def test_a_doubtful_part_of_a_range_that_is_answered_is_settled():
    opened = a_round()
    opened.answer(answer(1, 0, 2, norm=NAN))
    opened.fail(failure(2, 2, 4))
    assert opened.answer(answer(0, 0, 4))
    assert opened.complete
    assert opened.again() == []


UNBELIEVABLE = {"not a number": NAN, "infinite": math.inf, "a leap": 1e9}


@pytest.mark.parametrize("norm", UNBELIEVABLE.values(), ids=UNBELIEVABLE)
def test_what_is_not_plausible_is_held_until_somebody_else_has_computed_it(norm):
    opened = a_round()
    assert opened.answer(answer(0, 0, 2, norm))
    assert opened.doubtful
    assert opened.replies == []
    assert opened.again() == [Again(0, 2, (0,))]
    good = answer(1, 0, 2)
    assert opened.answer(good)
    assert opened.replies == [good]
    (distrusted,) = opened.distrusted
    assert distrusted == (0, "its answer for leaves 0 to 1 was not confirmed")
    opened.distrusted.clear()
    assert not opened.doubtful


@pytest.mark.parametrize("norm", UNBELIEVABLE.values(), ids=UNBELIEVABLE)
def test_what_somebody_else_confirms_is_so(norm):
    opened = a_round()
    opened.answer(answer(0, 0, 4, norm))
    confirmation = answer(1, 0, 4, norm)
    opened.answer(confirmation)
    assert opened.replies == [confirmation], "the newest, whose memory nobody has written to since"
    assert opened.distrusted == []
    assert opened.complete


def test_what_was_confirmed_is_usual_from_then_on():
    opened = a_round()
    opened.answer(answer(0, 0, 2, 1e9))
    opened.answer(answer(1, 2, 4, 2.0))
    opened.answer(answer(1, 0, 2, 1e9))
    assert opened.largest == 1e9


def test_what_is_not_finite_is_never_usual():
    opened = a_round()
    opened.answer(answer(1, 0, 2, 3.0))
    opened.answer(answer(0, 2, 4, NAN))
    opened.answer(answer(1, 2, 4, NAN))
    assert opened.largest == 3.0


def test_nobody_is_distrusted_in_a_first_step_for_whatever_size():
    opened = a_round(usual=None)
    opened.answer(answer(0, 0, 4, 1e30))
    assert opened.complete


def test_an_audited_answer_is_compared_and_the_third_decides():
    opened = a_round(verify=1.0)
    opened.answer(answer(0, 0, 4))
    assert opened.again() == [Again(0, 4, (0,))]
    opened.answer(answer(1, 0, 4, loss=2.0))
    assert opened.again() == [Again(0, 4, (0, 1))]
    opened.answer(answer(2, 0, 4))
    assert opened.complete
    assert [worker for worker, _ in opened.distrusted] == [1]


def test_workers_that_never_agree_fail_the_job():
    opened = a_round(verify=1.0)
    for worker in range(MOST_ANSWERS - 1):
        opened.answer(answer(worker, 0, 4, loss=float(worker)))
    with pytest.raises(JobError, match=r"workers 0, 1, 2, 3 all give other gradients for leaves 0 to 3 of step 1"):
        opened.answer(answer(MOST_ANSWERS - 1, 0, 4, loss=99.0))


def test_a_failure_that_another_repeats_fails_the_job():
    opened = a_round()
    opened.fail(failure(0, 0, 2))
    assert opened.again() == [Again(0, 2, (0,))]
    with pytest.raises(
        LeafError, match=r"worker 1 failed in step 1 on leaves 0 to 1 \(and so did worker 0\):\n.*\nZero"
    ):
        opened.fail(failure(1, 0, 2))


def test_a_failure_that_a_lone_worker_repeats_fails_the_job():
    opened = a_round()
    opened.fail(failure(0, 0, 4))
    with pytest.raises(LeafError):
        opened.fail(failure(0, 0, 4))


def test_failures_that_differ_are_tried_three_times():
    opened = a_round()
    for worker in range(2):
        opened.fail(failure(worker, 0, 4, f"MemoryError: {worker}"))
    with pytest.raises(LeafError):
        opened.fail(failure(2, 0, 4, "MemoryError: 2"))


def test_who_fails_where_another_does_not_is_distrusted():
    opened = a_round()
    opened.fail(failure(0, 0, 4))
    opened.answer(answer(1, 0, 4))
    assert opened.distrusted == [(0, "it failed in what did not fail when it was repeated: ZeroDivisionError")]


def test_what_is_in_doubt_and_has_failed_is_asked_for_once():
    opened = a_round()
    opened.answer(answer(0, 0, 4, NAN))
    opened.fail(failure(0, 0, 4))
    assert opened.again() == [Again(0, 4, (0, 0))]


def test_a_failure_on_what_is_answered_is_nothing():
    opened = a_round()
    opened.answer(answer(0, 0, 2))
    for _ in range(5):
        opened.fail(failure(1, 0, 4))
    assert not opened.doubtful


class Simulation:
    """A round as `Rounds` runs it, whose workers do anything that is drawn, and answer as they should from then on."""

    patience = Patience(hang_seconds=1.0, late_seconds=0.05, first_seconds=2.0)

    def __init__(self, units, workers, draw, *, repeatable, verify):
        self.opened = OpenRound(units, 1.0, verify)
        self.able, self.dying = list(range(workers)), []
        self.under_way = []
        self.repeatable, self.draw = repeatable, draw
        self.now, self.begins = 0.0, True
        self.fresh = itertools.count(workers)
        self.answers, self.failures = Counter(), Counter()

    def decide(self):
        current = {(each.start, each.stop) for each in self.under_way}
        state = RoundState(
            units=self.opened.units,
            done=self.opened.answered,
            asked=self.under_way,
            again=[again for again in self.opened.again() if (again.start, again.stop) not in current],
            unit_seconds=0.001,
            repeatable=self.repeatable,
            begins=self.begins,
        )
        self.begins = False
        for each in decide(self.now, self.able, state, self.patience):
            if isinstance(each, Kill):
                self.kill(each.worker)
                continue
            self.under_way.append(Asked(each.worker, each.start, each.stop, self.now, queue=each.stop - each.start))
        if not self.repeatable:
            held = Counter(unit for each in self.under_way for unit in range(each.start, each.stop))
            assert set(held.values()) <= {1}

    def kill(self, worker):
        if worker in self.able:
            self.able[self.able.index(worker)] = next(self.fresh)
            self.dying.append(worker)

    def happen(self, what, number):
        """One event, and what is decided of it."""
        if what == "wait" or not self.under_way:
            self.now += 0.06
            for worker in self.dying:
                self.lose(worker)
            self.dying.clear()
        elif what == "long wait":
            self.now += 1.1
        else:
            self.reply(what, self.under_way[number % len(self.under_way)])
        for worker, _ in self.opened.distrusted:
            self.kill(worker)
        self.opened.distrusted.clear()
        if not self.opened.complete:
            self.decide()

    def lose(self, worker):
        self.under_way = [each for each in self.under_way if each.worker != worker]

    def reply(self, what, each):
        units = each.start, each.stop
        if what == "die":
            self.lose(each.worker)
            self.able = [next(self.fresh) if worker == each.worker else worker for worker in self.able]
            return
        self.under_way.remove(each)
        if what == "fail":
            self.failures[units] += 1
            self.opened.fail(failure(each.worker, *units, error=f"MemoryError: {self.failures.total()}"))
        elif not self.repeatable:
            self.opened.answer(Updates(UpdateRequest(1, 1, *units, 1, 0.1, ()), each.worker, None, 0.0))
        elif what == "lie":
            self.answers[units] += 1
            self.opened.answer(answer(each.worker, *units, norm=NAN, loss=float(self.answers.total())))
        else:
            self.answers[units] += 1
            self.opened.answer(answer(each.worker, *units))

    def run(self):
        """True if the round was completed; False if the job had to fail, and was right to."""
        self.decide()
        try:
            for what, number in self.draw:
                if not self.opened.complete:
                    self.happen(what, number)
            for number in range(200):
                if self.opened.complete:
                    return True
                self.happen("answer" if number % 4 else "wait", 0)
        except LeafError:
            assert max(self.failures.values()) >= 3
            return False
        except JobError:
            assert max(self.answers.values()) >= MOST_ANSWERS
            return False
        raise AssertionError("somebody is asked for ever")


HAPPENINGS = st.sampled_from(["answer", "answer", "answer", "wait", "long wait", "die", "fail", "lie"])
SCHEDULES = st.lists(st.tuples(HAPPENINGS, st.integers(0, 7)), max_size=30)


@settings(max_examples=500)
@given(st.integers(1, 8), st.integers(1, 4), SCHEDULES, st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_whatever_happens_every_unit_is_answered_exactly_once(units, workers, schedule, repeatable, verify):
    simulation = Simulation(units, workers, schedule, repeatable=repeatable, verify=verify)
    if simulation.run():
        assert units_of(simulation.opened) == list(range(units))


span = st.tuples(st.integers(0, 7), st.integers(1, 8)).map(lambda ends: (ends[0], max(ends[0] + 1, ends[1])))
anything = st.tuples(st.sampled_from(["answer", "lie", "fail"]), st.integers(0, 3), span)


@settings(max_examples=300)
@given(st.lists(anything, max_size=20))
def test_answers_to_any_ranges_at_all_leave_no_unit_twice_and_none_forgotten(events):
    opened = a_round(units=8)
    for number, (what, worker, units) in enumerate(events):
        try:
            if what == "fail":
                opened.fail(failure(worker, *units, error=f"MemoryError: {number}"))
            else:
                norm = 1.0 if what == "answer" else NAN
                opened.answer(answer(worker, *units, norm=norm, loss=float(number)))
        except JobError:
            return
        waiting = {unit for again in opened.again() for unit in range(again.start, again.stop)}
        assert opened.answered == set(units_of(opened)) | waiting
        assert waiting.isdisjoint(units_of(opened))
        assert len(set(units_of(opened))) == len(units_of(opened))
    for again in opened.again():
        opened.answer(answer(9, again.start, again.stop))
    for unit in set(range(8)) - opened.answered:
        opened.answer(answer(9, unit, unit + 1))
    assert opened.complete
    assert units_of(opened) == list(range(8))
