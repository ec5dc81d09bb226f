"""Which events a run has, when they are sent, and that each is sent once."""

import json
import math
import threading
from pathlib import Path

import pytest

from shardsgd.coordinator.records import Incident, Pace, StepRecord, ValidationRecord
from shardsgd.coordinator.service import runner_events
from shardsgd.coordinator.service.jobs import Position
from shardsgd.coordinator.service.runner_events import EventSender, earlier_events
from shardsgd.coordinator.service.runner_messages import Ended, Happened, Running
from shardsgd.coordinator.service.step_events import Thinner
from shardsgd.protos import training_pb2 as pb

PACE = Pace(1000.0, 0.5, None)
LIMIT_S = 30.0


def record(step, loss=1.0):
    return StepRecord(step, step // 10, loss, 0.1, 2.0, None, 30.0, 0.001)


def taken(thinner, steps, times):
    """(step, steps left out) of the events of steps at times, and of the rest."""
    events = [thinner.take(record(step), PACE, now) for step, now in zip(steps, times, strict=True)]
    return [(event.body["step"], event.body["steps_left_out"]) for event in [*events, thinner.rest()] if event]


def test_steps_of_less_than_the_least_time_have_no_event_except_the_last():
    assert taken(Thinner(-1, 1.0), range(6), [0.0, 0.4, 0.9, 1.0, 1.9, 1.95]) == [(0, 0), (3, 2), (5, 1)]


def test_the_last_step_has_one_event():
    assert taken(Thinner(-1, 1.0), range(3), [0.0, 1.0, 2.0]) == [(0, 0), (1, 0), (2, 0)]


def test_what_is_recorded_already_is_not_sent_and_what_is_missing_is_counted():
    assert taken(Thinner(4, 1.0), range(2, 8), [0.0] * 6) == [(5, 0), (7, 1)]
    assert taken(Thinner(4, 1.0), [9, 10], [0.0, 1.0]) == [(9, 4), (10, 0)], "lost with the process that had taken them"
    assert taken(Thinner(4, 1.0), [2, 3], [0.0, 9.0]) == []


def test_a_clock_that_is_set_back_does_not_silence_a_run():
    assert taken(Thinner(-1, 1.0), range(3), [1000.0, 5.0, 6.0]) == [(0, 0), (1, 0), (2, 0)]


def test_a_metrics_event_is_the_protocols_message():
    (event,) = [Thinner(-1).take(record(3, loss=math.inf), PACE, 7.0)]
    assert (event.kind, event.at) == ("metrics", 7.0)
    assert set(event.body) == {field.name for field in pb.Metrics.DESCRIPTOR.fields}
    assert event.body["loss"] is None
    assert (event.body["steps_left_out"], event.body["samples_per_second"]) == (3, 1000.0)


class Service:
    """Keeps what is sent; while `gate` is closed it does not read."""

    def __init__(self):
        self.messages = []
        self.gate = threading.Event()
        self.gate.set()
        self._came = threading.Condition()

    def __call__(self, message):
        assert self.gate.wait(LIMIT_S)
        with self._came:
            self.messages.append(message)
            self._came.notify_all()

    @property
    def events(self):
        return [event for message in self.messages if isinstance(message, Happened) for event in message.events]

    def wait_for(self, number):
        with self._came:
            assert self._came.wait_for(lambda: len(self.messages) >= number, LIMIT_S)


@pytest.fixture
def service():
    return Service()


def steps_of(service):
    return [event.body["step"] for event in service.events if event.kind == "metrics"]


def test_the_first_step_validations_and_incidents_are_sent_at_once(service, monkeypatch, tmp_path):
    monkeypatch.setattr(runner_events, "_FLUSH_S", 3600.0)
    sender = EventSender(service, tmp_path, Position())
    sender.step(record(0), PACE)
    service.wait_for(1)
    sender.validation(ValidationRecord(10, 1, 0.5, None))
    service.wait_for(2)
    sender.incident(Incident(10, "lost", 1, "killed"))
    service.wait_for(3)
    sender.end(Ended("SUCCEEDED", "done"))
    assert [event.kind for event in service.events] == ["metrics", "validation", "incident"]
    assert service.messages[-1] == Ended("SUCCEEDED", "done")


def test_what_is_not_urgent_is_sent_before_long_and_all_together(service, tmp_path):
    sender = EventSender(service, tmp_path, Position())
    sender.note(f"{tmp_path} held an unfinished run")
    service.wait_for(1)
    assert service.events[0].body == {"text": "the job's folder held an unfinished run"}
    sender.end(Ended("FAILED", f"{tmp_path}/x: damaged"))
    assert service.messages[-1].reason == "the job's folder/x: damaged"


def test_bodies_are_those_of_the_protocols_messages(service, tmp_path):
    sender = EventSender(service, tmp_path, Position())
    sender.validation(ValidationRecord(10, 1, math.nan, None))
    sender.incident(Incident(10, "recovered", None, "", 3, 0.25))
    sender.end(Ended("SUCCEEDED", ""))
    validation, incident = service.events
    assert validation.body == {"step": 10, "epoch": 1, "loss": None, "accuracy": None}
    assert set(incident.body) == {field.name for field in pb.Incident.DESCRIPTOR.fields}


def test_a_service_that_does_not_read_delays_no_step_and_costs_a_bounded_memory(service, monkeypatch, tmp_path):
    monkeypatch.setattr(runner_events, "_MOST_WAITING", 3)
    service.gate.clear()
    sender = EventSender(service, tmp_path, Position())
    sender._thinner = Thinner(-1, 0.0)
    sender.step(record(0), PACE)
    while sender._messages:
        pass  # the thread takes it, and then waits for the service
    for step in range(1, 1000):
        sender.step(record(step), PACE)
    assert len(sender._messages) == 3
    service.gate.set()
    service.wait_for(2)
    sender.step(record(1000), PACE)
    sender.end(Ended("SUCCEEDED", ""))
    assert steps_of(service) == [0, 1, 2, 3, 1000]
    assert service.events[-1].body["steps_left_out"] == 996


def test_once_the_service_is_gone_the_run_goes_on(tmp_path):
    def send(message):
        raise BrokenPipeError

    sender = EventSender(send, tmp_path, Position())
    for step in range(100):
        sender.step(record(step), PACE)
        sender.validation(ValidationRecord(step + 1, 0, 0.5, None))
    sender.end(Ended("INTERRUPTED", ""))


LINES = [
    {"step": 9, "epoch": 0, "loss": 1.0},
    {"step": 10, "epoch": 1, "validation": {"loss": 0.5, "accuracy": 0.75}},
    {"step": 12, "incident": {"kind": "lost", "worker": 1, "reason": "killed", "leaves": 0, "seconds": None}},
    {"step": 12, "incident": {"kind": "recovered", "worker": None, "reason": "", "leaves": 4, "seconds": 0.1}},
    {"step": 20, "epoch": 2, "validation": {"loss": 0.25, "accuracy": None}},
]


def written(folder) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_what_earlier_sessions_recorded_and_the_service_did_not_is_found(tmp_path):
    path = written(tmp_path)
    everything = [(event.kind, event.body["step"]) for event in earlier_events(path, Position())]
    assert everything == [("validation", 10), ("incident", 12), ("incident", 12), ("validation", 20)]
    assert earlier_events(path, Position(15, 10, -1))[0].body == {"step": 12, **LINES[2]["incident"]}
    assert [event.body for event in earlier_events(path, Position(25, 10, 12))] == [
        {"step": 20, "epoch": 2, "loss": 0.25, "accuracy": None}
    ]
    assert earlier_events(path, Position(25, 20, 12)) == []


def test_what_was_found_is_sent_after_that_the_run_steps_and_not_again_when_it_happens_again(service, tmp_path):
    written(tmp_path)
    sender = EventSender(service, tmp_path, Position(9, 10, 12))
    sender.about_to_step()
    sender.validation(ValidationRecord(20, 2, 0.25, None))
    sender.validation(ValidationRecord(30, 3, 0.2, None))
    sender.incident(Incident(12, "lost", 0, "killed"))
    sender.end(Ended("SUCCEEDED", ""))
    assert isinstance(service.messages[0], Running)
    assert [(event.kind, event.body["step"]) for event in service.events] == [
        ("validation", 20),
        ("validation", 30),
        ("incident", 12),
    ], "an incident is another one, though in the same step"
