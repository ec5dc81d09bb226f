"""What the service and a runner say to each other: JSON, one message a line, over a socket that only these two have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from shardsgd.coordinator.service.jobs import NewEvent, Position

# More than a line ever has: the service refuses specs long before.
LONGEST_LINE = 64 * 2**20

RunOutcome = Literal["SUCCEEDED", "FAILED", "INTERRUPTED"]


@dataclass(frozen=True)
class Run:
    """To a runner: train this job, or go on with it. One at a time.

    Attributes:
        job_id: whose.
        spec_toml: the resolved spec.
        folder: where the run's files go, or are; absolute.
        position: how far the recorded events go.
        scale: workers that were asked for later than with the spec; None: none.
    """

    job_id: str
    spec_toml: str
    folder: str
    position: Position
    scale: int | None = None


@dataclass(frozen=True)
class Stop:
    """To a runner: stop the job with a checkpoint."""


@dataclass(frozen=True)
class Scale:
    """To a runner: have the job go on with another number of workers."""

    workers: int


@dataclass(frozen=True)
class Ready:
    """From a runner, once: it can be told to run.

    Attributes:
        workers: that it has warm.
    """

    workers: int = 0


@dataclass(frozen=True)
class Running:
    """From a runner: the job's first step is about to begin."""


@dataclass(frozen=True)
class Happened:
    """From a runner: events of the job, in the order in which they are to be recorded."""

    events: tuple[NewEvent, ...]


@dataclass(frozen=True)
class Ended:
    """From a runner: it runs the job no more, and can be told to run another.

    Attributes:
        outcome: SUCCEEDED (a stop rule held), INTERRUPTED (it can go on from a checkpoint) or FAILED.
        reason: in words; empty where it was interrupted because it was told to stop.
        summary: the object of summary.json; None if the run ended before its first step.
        input_error: it failed because what was asked for is wrong, so that it would fail again.
        workers: that the runner has warm now.
    """

    outcome: RunOutcome
    reason: str
    summary: dict[str, Any] | None = None
    input_error: bool = False
    workers: int = 0


Message = Run | Stop | Scale | Ready | Running | Happened | Ended

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Run, Stop, Scale, Ready, Running, Happened, Ended)}


def encode(message: Message) -> bytes:
    """A message as a line.

    Raises:
        ValueError: it holds a number that is not finite, which JSON lacks.
    """
    fields = dict(vars(message))
    if isinstance(message, Run):
        fields["position"] = vars(message.position)
    if isinstance(message, Happened):
        fields["events"] = [[event.kind, event.at, event.body] for event in message.events]
    return json.dumps([type(message).__name__, fields], allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line.

    Raises:
        ValueError: it is none.
    """
    try:
        kind, fields = json.loads(line)
        if kind == Run.__name__:
            fields["position"] = Position(**fields["position"])
        if kind == Happened.__name__:
            fields["events"] = tuple(NewEvent(*event) for event in fields["events"])
        message: Message = _KINDS[kind](**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a message: {line[:100]!r} ({error})") from None
    return message
