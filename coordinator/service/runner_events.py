"""What happens in a run, on its way from the step loop to the service: in order, in batches, each once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from shardsgd.coordinator.records import Incident, Pace, StepRecord, ValidationRecord, finite
from shardsgd.coordinator.service.jobs import NewEvent, Position
from shardsgd.coordinator.service.runner_messages import Ended, Happened, Message, Running
from shardsgd.coordinator.service.step_events import Thinner

_FLUSH_S = 0.1
# Events of one message: enough that a message costs little, few enough that none is long.
_BATCH = 256
# Events that wait for a service that does not read. Beyond it steps have none, as if they were too fast.
_MOST_WAITING = 20_000


class EventSender:
    """An observer that sends the service what happens, from a thread of its own: the step loop never waits for it.

    Once the service is gone, nothing is sent any more and the run goes on.
    """

    def __init__(self, send: Callable[[Message], None], run: Path, position: Position) -> None:
        """Of one run.

        Args:
            send: to the service; may wait for it. Raises OSError once it is gone.
            run: its folder, which no text names: where the service keeps its files is its own affair.
            position: how far the recorded events go.
        """
        self._send = send
        self._run = run
        self._position = position
        self._thinner = Thinner(position.step)
        self._is_first = True
        self._messages: list[NewEvent | Message] = []
        self._changed = threading.Condition()
        self._urgent = False
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def phase(self, text: str) -> None:
        """Sends nothing: the job's state says as much."""

    def note(self, text: str) -> None:
        """Sends a line for the user."""
        self._put(NewEvent("log", time.time(), {"text": self.public(text)}))

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Sends the step's metrics, if they are due; the first at once."""
        if len(self._messages) < _MOST_WAITING:
            now = time.time()
            event = self._thinner.take(record, pace, now)
            if event is not None:
                self._put(event, urgent=self._is_first)
                self._is_first = False

    def validation(self, record: ValidationRecord) -> None:
        """Sends the evaluation at once, unless it is recorded already."""
        if record.step > self._position.validation:
            self._position = replace(self._position, validation=record.step)
            self._put(NewEvent("validation", time.time(), finite(vars(record))), urgent=True)

    def incident(self, record: Incident) -> None:
        """Sends it at once."""
        self._put(NewEvent("incident", time.time(), finite(vars(record))), urgent=True)

    def about_to_step(self) -> None:
        """Sends that the run steps now, and what its earlier sessions recorded and the service has not."""
        self._put(Running(), urgent=True)
        for event in earlier_events(self._run / "metrics.jsonl", self._position):
            if event.kind == "validation":
                self._position = replace(self._position, validation=event.body["step"])
            self._put(event)

    def end(self, ended: Ended) -> None:
        """Sends the last step's metrics and how the run ended, and waits until all is sent."""
        if (event := self._thinner.rest()) is not None:
            self._put(event)
        with self._changed:
            self._messages.append(replace(ended, reason=self.public(ended.reason)))
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def public(self, text: str) -> str:
        """A text for the user, which does not name the run's folder."""
        return text.replace(str(self._run), "the job's folder")

    def _put(self, message: NewEvent | Message, *, urgent: bool = False) -> None:
        with self._changed:
            self._messages.append(message)
            if urgent:
                self._urgent = True
                self._changed.notify()

    def _work(self) -> None:
        ended = False
        while not ended:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._ended, _FLUSH_S)
                messages, self._messages = self._messages, []
                self._urgent, ended = False, self._ended
            for message in _batched(messages):
                try:
                    self._send(message)
                except OSError:
                    break


def earlier_events(metrics: Path, position: Position) -> list[NewEvent]:
    """Validations and incidents that metrics.jsonl holds and that are not recorded, in its order.

    Args:
        metrics: the file.
        position: how far the recorded events go.
    """
    now, found = time.time(), []
    with metrics.open(encoding="utf-8") as file:
        for line in file:
            # Steps are most of the lines, and of no interest here.
            if '"validation"' not in line and '"incident"' not in line:
                continue
            fields = json.loads(line)
            if "incident" in fields and fields["step"] > position.incident:
                found.append(NewEvent("incident", now, {"step": fields["step"], **fields["incident"]}))
            elif "validation" in fields and fields["step"] > position.validation:
                body = {"step": fields["step"], "epoch": fields["epoch"], **fields["validation"]}
                found.append(NewEvent("validation", now, body))
    return found


def _batched(messages: list[NewEvent | Message]) -> Iterator[Message]:
    """Events that follow each other as one message."""
    events: list[NewEvent] = []

    def flushed() -> Iterator[Happened]:
        if events:
            yield Happened(tuple(events))
            events.clear()

    for message in messages:
        if isinstance(message, NewEvent):
            events.append(message)
            if len(events) == _BATCH:
                yield from flushed()
        else:
            yield from flushed()
            yield message
    yield from flushed()
