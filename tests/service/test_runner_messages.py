"""What a runner and the service say to each other survives the way."""

import json
import math

import pytest

from shardsgd.coordinator.service.jobs import NewEvent, Position
from shardsgd.coordinator.service.runner_messages import (
    Ended,
    Happened,
    Message,
    Ready,
    Run,
    Running,
    Scale,
    Stop,
    decode,
    encode,
)

EVENTS = (
    NewEvent("metrics", 1.25, {"step": 3, "loss": None, "noise_scale": 0.1 + 0.2}),
    NewEvent("log", 2.5, {"text": "θ\nin two lines"}),
)
MESSAGES = [
    Run("job-1", 'name = "a"\n[data]\nsource = "digits"\n', "/jobs/ä ö", Position(4, 3, -1), scale=3),
    Run("job-1", "", "/jobs", Position()),
    Stop(),
    Scale(7),
    Ready(2),
    Running(),
    Happened(EVENTS),
    Happened(()),
    Ended("SUCCEEDED", "30 epochs done", {"steps": 180, "validation": {"loss": 0.5}}, workers=2),
    Ended("FAILED", "no such file", input_error=True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_one_line_and_comes_back_as_it_was(message):
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_all_kinds_are_tried():
    assert {type(message) for message in MESSAGES} == set(Message.__args__)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b'["Nonsense",{}]\n',
        b'["Scale",{}]\n',
        b'["Scale",{"workers":1,"more":2}]\n',
        b'["Run",{"job_id":"a","spec_toml":"","folder":"/"}]\n',
        b'["Happened",{"events":[["log"]]}]\n',
        encode(Run("a", "b" * 200, "/c", Position()))[:150],
    ],
)
def test_what_is_no_message_is_refused(line):
    with pytest.raises(ValueError, match="not a message"):
        decode(line)


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Happened((NewEvent("metrics", 0.0, {"loss": math.nan}),)))


def test_a_number_keeps_all_its_bits():
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2**53 + 1]
    event = NewEvent("metrics", 1763740800.123456, dict(enumerate_named(numbers)))
    assert decode(encode(Happened((event,)))) == Happened((event,))
    assert json.loads(encode(Happened((event,))))[0] == "Happened"


def enumerate_named(numbers):
    return ((f"n{i}", number) for i, number in enumerate(numbers))
