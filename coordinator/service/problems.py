"""Everything that a call may be refused for: one catalog of reasons, the code each travels with, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from grpc import StatusCode

from shardsgd.errors import FieldProblem, ShardsgdError


class Reason(StrEnum):
    """Why a call was refused, for programs: the `reason` of google.rpc.ErrorInfo. Values are the names."""

    INVALID_SPEC = "INVALID_SPEC"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DATA_NOT_ALLOWED = "DATA_NOT_ALLOWED"
    DATA_UNREADABLE = "DATA_UNREADABLE"
    DATASET_NOT_FOUND = "DATASET_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    ILLEGAL_STATE = "ILLEGAL_STATE"
    JOB_FAILED = "JOB_FAILED"
    CANNOT_RESUME = "CANNOT_RESUME"
    NO_PARAMETERS = "NO_PARAMETERS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    TOO_MANY_WORKERS = "TOO_MANY_WORKERS"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    TOO_MANY_WATCHERS = "TOO_MANY_WATCHERS"
    UPLOAD_TOO_LARGE = "UPLOAD_TOO_LARGE"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    EVENTS_OUT_OF_RANGE = "EVENTS_OUT_OF_RANGE"
    DISK_FULL = "DISK_FULL"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Entry:
    """What the catalog says about a reason.

    Attributes:
        code: canonical code of the call.
        meaning: one sentence or two for docs/errors.md, with what to do.
    """

    code: StatusCode
    meaning: str


CATALOG: Mapping[Reason, Entry] = {
    Reason.INVALID_SPEC: Entry(
        StatusCode.INVALID_ARGUMENT, "Fields of the job spec are wrong; every one is listed, with what is accepted."
    ),
    Reason.INVALID_ARGUMENT: Entry(
        StatusCode.INVALID_ARGUMENT,
        "Fields of the request are wrong; every one is listed. Without any: the bytes are not this request's message.",
    ),
    Reason.DATA_NOT_ALLOWED: Entry(
        StatusCode.INVALID_ARGUMENT,
        "`data.source` is not a file or folder under a data root of the service; what exists elsewhere is not told.",
    ),
    Reason.DATA_UNREADABLE: Entry(
        StatusCode.INVALID_ARGUMENT, "The dataset cannot be read, or cannot be trained on with this spec."
    ),
    Reason.DATASET_NOT_FOUND: Entry(
        StatusCode.NOT_FOUND, "The caller has not uploaded such a dataset, or it was removed since: upload it again."
    ),
    Reason.JOB_NOT_FOUND: Entry(
        StatusCode.NOT_FOUND, "The caller has no such job: it never was, was deleted, or is somebody else's."
    ),
    Reason.UNAUTHENTICATED: Entry(
        StatusCode.UNAUTHENTICATED, "No token or client certificate came with the call, or not one that is known."
    ),
    Reason.ILLEGAL_STATE: Entry(
        StatusCode.FAILED_PRECONDITION,
        "The job is not in a state in which this can be done; `GetJob` says where it is.",
    ),
    Reason.JOB_FAILED: Entry(
        StatusCode.FAILED_PRECONDITION,
        "What was asked for needs a job that has not failed; the message says why it did.",
    ),
    Reason.CANNOT_RESUME: Entry(
        StatusCode.FAILED_PRECONDITION,
        "There is nothing to go on from, or it belongs to another spec or to other data.",
    ),
    Reason.NO_PARAMETERS: Entry(
        StatusCode.FAILED_PRECONDITION, "The job has no parameters to download yet, or ended before its first step."
    ),
    Reason.REQUEST_ID_REUSED: Entry(
        StatusCode.ALREADY_EXISTS, "The `request_id` made another job than the one asked for now: take a new one."
    ),
    Reason.TOO_MANY_WORKERS: Entry(
        StatusCode.FAILED_PRECONDITION,
        "More workers are asked for than the service has, has free, or lets one owner have.",
    ),
    Reason.QUOTA_EXCEEDED: Entry(
        StatusCode.RESOURCE_EXHAUSTED, "The owner has as much of something as is allowed: let jobs end, or delete some."
    ),
    Reason.TOO_MANY_WATCHERS: Entry(
        StatusCode.RESOURCE_EXHAUSTED, "The caller has as many streaming calls open as are allowed: end some of them."
    ),
    Reason.UPLOAD_TOO_LARGE: Entry(
        StatusCode.RESOURCE_EXHAUSTED, "The dataset is larger than one may be; `GetServerInfo` says how large."
    ),
    Reason.CHECKSUM_MISMATCH: Entry(
        StatusCode.INVALID_ARGUMENT, "Other bytes came than those of the announced sha256: send the dataset again."
    ),
    Reason.EVENTS_OUT_OF_RANGE: Entry(
        StatusCode.OUT_OF_RANGE,
        "`after_sequence` lies beyond the newest event of the job; `last_sequence` says which that is.",
    ),
    Reason.DISK_FULL: Entry(
        StatusCode.RESOURCE_EXHAUSTED, "The disk of the service is full; nothing was changed. Its operator has to act."
    ),
    Reason.DEADLINE_EXCEEDED: Entry(
        StatusCode.DEADLINE_EXCEEDED,
        "A call that set no deadline, or one above an hour, took the service longer than it works on such a call.",
    ),
    Reason.SHUTTING_DOWN: Entry(
        StatusCode.UNAVAILABLE, "The service stops or restarts: try again. Jobs are safe, and a watch can go on."
    ),
    Reason.UNKNOWN_METHOD: Entry(StatusCode.UNIMPLEMENTED, "The service has no such method: it is older or newer."),
    Reason.INTERNAL: Entry(
        StatusCode.INTERNAL, "An error of the service itself; its log has the details under the incident's number."
    ),
}


class ServiceError(ShardsgdError):
    """A call is refused.

    Attributes:
        reason: why, for programs.
        message: why, for people; shown to the caller as it is, so it names nothing that the caller may not know.
        fields: wrong fields of the request, all of them; their values as the caller sent them.
        metadata: facts for programs, by name, such as `job_id` or `limit`.
        retry_after_s: when to try again, in seconds; None: trying again is no use, or there is no telling when.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        fields: tuple[FieldProblem, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fields = fields
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own takes positional arguments only.
        return _rebuilt, (self.reason, self.message, self.fields, self.metadata, self.retry_after_s)

    @property
    def code(self) -> StatusCode:
        """The canonical code that it travels with."""
        return CATALOG[self.reason].code


def _rebuilt(
    reason: Reason,
    message: str,
    fields: tuple[FieldProblem, ...],
    metadata: dict[str, str],
    retry_after_s: float | None,
) -> ServiceError:
    return ServiceError(reason, message, fields=fields, metadata=metadata, retry_after_s=retry_after_s)
