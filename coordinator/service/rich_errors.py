"""A refusal as google.rpc.Status: what every gRPC client can read, in any language, and small enough for a trailer.

gRPC clients take 8 KiB of metadata. The message travels twice, once percent-encoded (three bytes for each that is not ASCII),
and details in base64; the bounds here leave room for that.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from shardsgd.coordinator.service.problems import ServiceError
from shardsgd.errors import FieldProblem

DOMAIN = "shardsgd"
# Key of the trailing metadata in which the status travels.
TRAILER = "grpc-status-details-bin"
STATUS_BYTES = 4096
MESSAGE_BYTES = 600
# Key of ErrorInfo's metadata: wrong fields that had no room.
OMITTED = "fields_omitted"

_FIELD_BYTES = 128
# What a description may be cut to, so that every field is named before any is left out.
_DESCRIPTION_BYTES = (400, 160, 80, 40)
_METADATA_ENTRIES = 12
_METADATA_BYTES = 100
_QUOTA_BYTES = 200
# Of a message inside a message: its tag and length, and the same of ErrorInfo's note on omitted fields.
_FRAME_BYTES = 4
_NOTE_BYTES = 40


def status_of(error: ServiceError) -> Status:
    """A refusal with ErrorInfo, and BadRequest, QuotaFailure and RetryInfo where they apply: at most `STATUS_BYTES`.

    INVALID_ARGUMENT always has BadRequest, with one violation a field; descriptions are cut before a field is left out, and
    ErrorInfo's metadata says how many were. Where the request is wrong as a whole, the field is empty.
    """
    message = _cut(error.message, MESSAGE_BYTES)
    status = Status(code=_number(error.code), message=message)
    metadata = dict(list(error.metadata.items())[:_METADATA_ENTRIES])
    info = details.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={_cut(name, 64): _cut(value, _METADATA_BYTES) for name, value in metadata.items()},
    )
    others: list[details.QuotaFailure | details.RetryInfo | details.BadRequest] = []
    if error.code is StatusCode.RESOURCE_EXHAUSTED:
        subject = _cut(metadata.get("subject", error.reason), _METADATA_BYTES)
        violation = details.QuotaFailure.Violation(subject=subject, description=_cut(error.message, _QUOTA_BYTES))
        others.append(details.QuotaFailure(violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        others.append(details.RetryInfo(retry_delay=delay))
    if error.fields or error.code is StatusCode.INVALID_ARGUMENT:
        used = status.ByteSize() + info.ByteSize() + sum(other.ByteSize() for other in others)
        # Each detail is wrapped into an Any, with the address of its type.
        fields = error.fields or (FieldProblem("", "", error.message),)
        bad, omitted = _bad_request(fields, STATUS_BYTES - used - 80 * (len(others) + 2))
        others.append(bad)
        if omitted:
            info.metadata[OMITTED] = str(omitted)
    for detail in (info, *others):
        status.details.add().Pack(detail)
    return status


def _bad_request(fields: Sequence[FieldProblem], room: int) -> tuple[details.BadRequest, int]:
    """All fields, in at most `room` bytes, and how many were left out."""
    for size in _DESCRIPTION_BYTES:
        bad = details.BadRequest(field_violations=[_violation(field, size) for field in fields])
        if bad.ByteSize() <= room:
            return bad, 0
    left = room - _NOTE_BYTES
    kept = 0
    for violation in bad.field_violations:
        left -= violation.ByteSize() + _FRAME_BYTES
        if left < 0:
            break
        kept += 1
    del bad.field_violations[kept:]
    return bad, len(fields) - kept


def _violation(problem: FieldProblem, size: int) -> details.BadRequest.FieldViolation:
    # What is accepted stands first: cut, it is what remains. The Python client reads it back.
    description = problem.accepted + (f" (given: {problem.value})" if problem.value else "")
    return details.BadRequest.FieldViolation(
        field=_cut(problem.path, _FIELD_BYTES), description=_cut(description, size)
    )


def _cut(text: str, size: int) -> str:
    """The text as valid UTF-8 of at most `size` bytes."""
    whole = text.encode("utf-8", "replace")
    if len(whole) <= size:
        return whole.decode()
    return whole[: size - len("…".encode())].decode(errors="ignore") + "…"


def _number(code: StatusCode) -> int:
    number: int = code.value[0]
    return number
