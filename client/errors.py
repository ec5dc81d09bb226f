"""Every error a user can meet, in one tree, and the exit code each ends with.

ShardsgdError
├── InputError          the input is wrong: nothing was started           exit 2
│   ├── SpecError       fields of the job spec
│   ├── DataError       the dataset
│   ├── ResumeError     the folder or the spec to resume from
│   └── RefusedError    a service refuses what is asked of it (a RemoteError too)
│       └── RemoteSpecError  … because of fields of the job spec (a SpecError too)
├── JobError            the job failed after it had started               exit 1
│   ├── DivergedError   a loss or gradient stopped being finite
│   ├── WorkersLostError  no worker is left to compute the missing leaves
│   ├── TakenOverError  another session of the run writes to its folder now
│   ├── LeafError       a worker's computation of a leaf raised
│   ├── JobFailedError  a service's job failed
│   └── JobCancelledError  a service's job was cancelled
├── RemoteError         a service did not do what was asked               exit 1
│   ├── ServiceUnavailableError  it cannot be reached, or does not answer
│   ├── TransferError   what arrived is not what was sent
│   └── RefusedError    see above                                         exit 2
├── WaitTimeoutError    a service's job goes on for longer than was to be waited
└── InterruptedJobError  the user stopped it; a checkpoint was written     exit 130
"""

from __future__ import annotations

from collections.abc import Mapping
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


class JobFailedError(JobError):
    """A job of a service failed; its message says why."""


class JobCancelledError(JobError):
    """A job of a service was cancelled. What it had learned by then can still be downloaded."""


class RemoteError(ShardsgdError):
    """A service did not do what was asked of it.

    Attributes:
        message: in words.
        reason: the service's own word for it, such as "JOB_NOT_FOUND"; docs/errors.md lists them. Empty where none came.
        code: canonical code of gRPC, such as "NOT_FOUND".
        fields: wrong fields of the request, all of them.
        metadata: what else the service says about it, by name.
        retry_after_s: when to try again, in seconds; None where the service does not say.
    """

    def __init__(
        self,
        message: str,
        reason: str = "",
        code: str = "",
        fields: tuple[FieldProblem, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        # All arguments go to Exception, so that the error survives a trip between processes. Not through super(): beside this
        # class a subclass may have bases whose arguments are others.
        Exception.__init__(self, message, reason, code, fields, metadata, retry_after_s)
        self.message = message
        self.reason = reason
        self.code = code
        self.fields = fields
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class ServiceUnavailableError(RemoteError):
    """The service cannot be reached, or did not answer in time. What was asked may have been done nevertheless."""


class TransferError(RemoteError):
    """What arrived is not what was sent: a checksum or a size is wrong."""


class RefusedError(RemoteError, InputError):
    """The service refuses what is asked of it; nothing was done.

    Examples: there is no such job, the caller may not see it, it cannot be paused because it has ended, a quota is used up.
    """

    exit_code = EXIT_INPUT


class RemoteSpecError(RefusedError, SpecError):
    """The service refuses a job spec. All wrong fields are listed, as by SpecError.

    Attributes:
        source: "job spec".
        problems: one entry a wrong field; the same as `fields`.
    """

    def __init__(
        self,
        message: str,
        reason: str = "",
        code: str = "",
        fields: tuple[FieldProblem, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        RemoteError.__init__(self, message, reason, code, fields, metadata, retry_after_s)
        self.source = "job spec"
        self.problems = fields

    def __str__(self) -> str:
        omitted = self.metadata.get("fields_omitted")
        return SpecError.__str__(self) + (f"\n  … and {omitted} more" if omitted else "")


class WaitTimeoutError(ShardsgdError, TimeoutError):
    """A job has not ended within the time that was to be waited for it; it goes on."""


class InterruptedJobError(ShardsgdError):
    """The user interrupted the job; it can be resumed.

    Attributes:
        summary: how far it came; None if it was interrupted before it could take a step.
    """

    exit_code = EXIT_INTERRUPTED
    summary: Summary | None = None
