"""The workers of a run as they come and go, over an exchange that only writes down what it is told."""

from dataclasses import dataclass, field

import pytest
from fakes import FakeTime

from shardsgd.coordinator.members import Members
from shardsgd.coordinator.staffing import Limits
from shardsgd.errors import WorkersLostError
from shardsgd.workers.exchange import WorkerJoined, WorkerLeaving, WorkerLost


@dataclass
class Notebook:
    workers: list[int]
    told: list[tuple[str, int]] = field(default_factory=list)

    def start(self, worker):
        self.told.append(("start", worker))

    def kill(self, worker):
        self.told.append(("kill", worker))

    def dismiss(self, worker):
        self.told.append(("dismiss", worker))

    def news(self):
        """What it was told since the last call."""
        told, self.told = self.told, []
        return told


def some(count, *, target=None, wanted=lambda: None, losses=0, **limits):
    exchange, clock = Notebook(list(range(count))), FakeTime()
    limits = Limits(**{"most": max(count, 4)} | limits)
    return Members(exchange, limits, clock, target=target or count, wanted=wanted, losses=losses), exchange, clock


def book(members):
    return [(incident.kind, incident.worker) for incident in members.incidents]


def test_with_everybody_there_nothing_is_done():
    members, exchange, _ = some(3)
    assert not members.restless
    members.tend()
    assert exchange.news() == []
    assert members.able == (0, 1, 2)
    assert members.enough


def test_who_is_lost_is_replaced_under_the_same_number_and_asked_once_it_has_joined():
    members, exchange, _ = some(3)
    members.answered.add(1)
    members.lost(WorkerLost(1, "its connection closed"))
    assert members.able == (0, 2)
    assert members.losses == 1
    members.tend()
    members.tend()
    assert exchange.news() == [("start", 1)]
    assert members.able == (0, 2)
    members.joined(WorkerJoined(1))
    assert members.able == (0, 1, 2)
    assert not members.restless
    assert book(members) == [("lost", 1), ("joined", 1)]
    assert members.incidents[0].reason == "its connection closed"


def test_incidents_are_of_the_step_in_which_they_happened():
    members, _, _ = some(2)
    members.step = 7
    members.lost(WorkerLost(1, "killed"))
    assert members.incidents[0].step == 7


def test_who_is_given_notice_is_replaced_at_once_and_let_go_when_it_has_answered():
    members, exchange, _ = some(2)
    members.leaving(WorkerLeaving(0))
    members.leaving(WorkerLeaving(0))
    assert members.able == (1,)
    members.tend(busy=frozenset([0]))
    assert exchange.news() == [("start", 2)]
    members.joined(WorkerJoined(2))
    members.tend(busy=frozenset([0]))
    assert exchange.news() == []
    members.tend()
    assert exchange.news() == [("dismiss", 0)]
    assert not members.restless
    assert members.losses == 0
    assert book(members) == [("left", 0), ("joined", 2)]


def test_a_number_is_free_again_once_its_worker_has_been_let_go():
    members, exchange, _ = some(2, most=2)
    members.leaving(WorkerLeaving(0))
    members.tend(busy=frozenset([0]))
    assert exchange.news() == []
    members.tend()
    members.tend()
    assert exchange.news() == [("dismiss", 0), ("start", 0)]


def test_who_dies_after_its_notice_is_no_loss():
    members, exchange, _ = some(2)
    members.leaving(WorkerLeaving(0))
    members.lost(WorkerLost(0, "its connection closed"))
    assert members.losses == 0
    members.tend()
    assert exchange.news() == [("start", 0)]
    assert book(members) == [("left", 0)]


def test_who_is_killed_is_lost_for_the_reason_it_was_killed_for():
    members, exchange, _ = some(2)
    assert members.kill(1, "no answer for 5 s")
    assert members.able == (0,)
    assert not members.kill(1, "no answer for 6 s")
    assert exchange.news() == [("kill", 1)]
    members.tend()
    assert exchange.news() == [("start", 2)], "its number is not free before it is dead"
    members.lost(WorkerLost(1, "its connection closed"))
    assert [(incident.kind, incident.reason) for incident in members.incidents] == [("lost", "no answer for 5 s")]
    assert members.losses == 1


def test_who_is_killed_is_never_let_go():
    members, exchange, _ = some(2)
    members.leaving(WorkerLeaving(1))
    members.kill(1, "no answer for 5 s")
    members.tend()
    assert ("dismiss", 1) not in exchange.news()


def test_who_follows_one_that_was_to_be_killed_when_it_was_dead_already_can_be_killed():
    members, exchange, _ = some(2)
    members.lost(WorkerLost(1, "its connection closed"))
    members.kill(1, "its answer was not confirmed")
    members.tend()
    members.joined(WorkerJoined(1))
    exchange.news()
    assert members.kill(1, "no answer for 5 s")
    assert exchange.news() == [("kill", 1)]


def test_a_start_that_fails_is_no_recovery_and_is_tried_again_later():
    members, exchange, clock = some(2)
    members.lost(WorkerLost(1, "killed"))
    clock.now = 1.0
    members.tend()
    members.lost(WorkerLost(1, "no worker can be had"))
    assert members.losses == 1
    assert book(members) == [("lost", 1), ("start failed", 1)]
    exchange.news()
    members.tend()
    assert exchange.news() == []
    clock.now = 100.0
    members.tend()
    assert exchange.news() == [("start", 1)]


def test_a_start_that_takes_too_long_is_given_up():
    members, exchange, clock = some(2, start_seconds=10.0)
    members.answered.add(1)
    members.lost(WorkerLost(1, "killed"))
    members.tend()
    clock.now = 10.0
    members.tend()
    members.tend()
    assert exchange.news() == [("start", 1), ("kill", 1)]
    members.lost(WorkerLost(1, "killed before it was ready"))
    assert members.incidents[-1].kind == "start failed"
    assert members.incidents[-1].reason == "not ready after 10 s"
    assert members.losses == 1


def test_as_many_as_are_wanted_within_the_limits():
    wishes = [None]
    members, exchange, _ = some(2, least=2, most=3, wanted=lambda: wishes[-1])
    members.tend()
    assert exchange.news() == []
    for wish, expected in [(3, [("start", 2)]), (9, []), (2, [("dismiss", 2)]), (1, []), (None, [])]:
        wishes.append(wish)
        assert members.restless is bool(expected)
        members.tend()
        told = exchange.news()
        assert told == expected
        for what, worker in told:
            if what == "start":
                members.joined(WorkerJoined(worker))
    assert members.able == (0, 1)
    assert book(members) == [("joined", 2), ("left", 2)]


def test_with_nobody_to_be_had_the_job_fails_when_it_has_waited_long_enough_and_says_what_happened():
    members, _, clock = some(1, wait_seconds=60.0)
    members.lost(WorkerLost(0, "killed by the kernel"))
    assert not members.enough
    for clock.now in (0.0, 59.9):
        members.tend()
    clock.now = 60.0
    with pytest.raises(
        WorkersLostError, match=r"workers\.wait_seconds = 60.*the last loss: worker 0: killed by the kernel"
    ):
        members.tend()


def test_more_losses_than_are_allowed_fail_the_job():
    limited = Members(Notebook([0, 1, 2, 3]), Limits(most=4, losses=2), FakeTime(), target=4)
    for worker in range(2):
        limited.lost(WorkerLost(worker, "killed"))
    limited.tend()
    limited.lost(WorkerLost(2, "killed"))
    with pytest.raises(WorkersLostError, match=r"3 workers were lost; workers\.max_losses = 2"):
        limited.tend()


def test_losses_of_earlier_sessions_are_counted_on():
    members, _, _ = some(2, losses=5)
    members.lost(WorkerLost(1, "killed"))
    assert members.losses == 6
