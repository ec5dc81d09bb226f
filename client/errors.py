"""Every error a user can meet, in one tree, and the exit code each ends with.

ShardsgdError
├── InputError          the input is wrong: nothing was started           exit 2
│   ├── SpecError       fields of the job spec
│   ├── DataError       the dataset
│   └── ResumeError     the folder or the spec to resume from
├── JobError            the job failed after it had started               exit 1
│   ├── DivergedError   a loss or gradient stopped being finite
│   ├── WorkersLostError  no worker is left to compute the missing leaves
│   ├── TakenOverError  another session of the run writes to its folder now
│   └── LeafError       a worker's computation of a leaf raised
└── InterruptedJobError  the user stopped it; a checkpoint was written     exit 130
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardsgd.coordinator.records import Summary

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


class ShardsgdError(Exception):
    """Base of all errors raised on purpose. `str(error)` is written for the user."""

    exit_code = EXIT_FAILED


class InputError(ShardsgdError):
    """What the user gave is wrong; nothing was started."""

    exit_code = EXIT_INPUT


@dataclass(frozen=True)
class FieldProblem:
    """One wrong field of a spec.

    Attributes:
        path: dotted path of the field, such as `optimizer.learning_rate`.
        value: what was given, as the user would write it; empty if nothing was.
        accepted: what would have been accepted, in words.
    """

    path: str
    value: str
    accepted: str

    def __str__(self) -> str:
        given = f" = {self.value}" if self.value else ""
        return f"{self.path}{given}: {self.accepted}"


class SpecError(InputError):
    """One or more fields of the job spec are wrong. All of them are listed.

    Attributes:
        source: where the spec came from (a file name, or "job spec").
        problems: one entry a wrong field.
    """

    def __init__(self, source: str, problems: tuple[FieldProblem, ...]) -> None:
        # All arguments go to Exception.__init__, so that the error survives a trip between processes.
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    def __str__(self) -> str:
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        return "\n".join([f"{self.source}: {count}", *(f"  {problem}" for problem in self.problems)])


class DataError(InputError):
    """The dataset cannot be read or cannot be trained on."""


class ResumeError(InputError):
    """There is nothing to resume from, or it belongs to another job."""


class JobError(ShardsgdError):
    """The job failed after it had started.

    Attributes:
        summary: how far it came; None if it failed before it could take a step.
    """

    summary: Summary | None = None


class DivergedError(JobError):
    """The loss or the gradient stopped being a finite number."""


class WorkersLostError(JobError):
    """No worker is left to compute the missing leaves."""


class LeafError(JobError):
    """A worker's computation raised: the job's own fault, which another worker would repeat."""


class TakenOverError(JobError):
    """Another session has taken over the run's folder; this one leaves it as it is.

    Example: a session's process was stopped, `--resume DIR --take-over` went on in its place, and then it woke up.
    """


class InterruptedJobError(ShardsgdError):
    """The user interrupted the job; it can be resumed.

    Attributes:
        summary: how far it came; None if it was interrupted before it could take a step.
    """

    exit_code = EXIT_INTERRUPTED
    summary: Summary | None = None
