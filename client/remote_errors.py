"""What a gRPC call says when it fails, as an error of this package."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from shardsgd.coordinator.service.problems import Reason
from shardsgd.coordinator.service.rich_errors import DOMAIN, TRAILER
from shardsgd.errors import (
    FieldProblem,
    RefusedError,
    RemoteError,
    RemoteSpecError,
    ServiceUnavailableError,
    TransferError,
)

# The request is at fault: it would fail again. Of all others nobody can say so.
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_UNAVAILABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_CLOSED = "the connection was closed, as by a service that wants TLS (tls_ca) or a certificate of yours (tls_cert)"
# What gRPC says where no connection comes about, and what that means. The first that fits.
_CAUSES = (
    ("Connection refused", "nothing listens there (connection refused)"),
    ("DNS resolution failed", "there is no host of that name"),
    ("lookup failed", "there is no host of that name"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by an authority trusted here (tls_ca says which are)"),
    ("Hostname Verification Check failed", "its certificate is for another host name"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS there"),
    ("Ssl handshake failed", "the TLS handshake failed"),
    ("Socket closed", _CLOSED),
    ("Connection reset", _CLOSED),
)


def error_of(error: grpc.RpcError, address: str = "the service") -> RemoteError:
    """A failed call as an error of this package.

    Args:
        error: as gRPC raised it.
        address: of the service, for messages.
    """
    code: grpc.StatusCode = error.code()
    said: str = error.details() or ""
    details = _details(error)
    info = details.get(error_details_pb2.ErrorInfo)
    wrong = details.get(error_details_pb2.BadRequest)
    fields = tuple(map(_problem, wrong.field_violations)) if wrong is not None else ()
    fields = tuple(field for field in fields if field.path)
    retry = details.get(error_details_pb2.RetryInfo)
    reason = info.reason if info is not None and info.domain == DOMAIN else ""
    kind: type[RemoteError] = RemoteError
    if code in _UNAVAILABLE:
        kind = ServiceUnavailableError
        said = said if reason else f"{address}: {_in_words(code, said)}"
    elif reason == Reason.CHECKSUM_MISMATCH:
        kind = TransferError
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        kind, said = RefusedError, f"{address} does not know this request: it is another service, or of another version"
    elif code in _REFUSED:
        kind = RemoteSpecError if reason == Reason.INVALID_SPEC and fields else RefusedError
    elif not reason:
        said = f"{address}: {said or code.name}"
    return kind(
        said or code.name,
        reason,
        code.name,
        fields,
        dict(info.metadata) if reason and info is not None else None,
        retry.retry_delay.ToTimedelta().total_seconds() if retry is not None else None,
    )


def _problem(violation: error_details_pb2.BadRequest.FieldViolation) -> FieldProblem:
    """A wrong field. The service writes its description as "ACCEPTED (given: VALUE)", cut where there is no room."""
    accepted, _, value = violation.description.partition(" (given: ")
    return FieldProblem(violation.field, value.removesuffix(")"), accepted)


def _in_words(code: grpc.StatusCode, said: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "the service did not answer in time"
    cause = next((words for mark, words in _CAUSES if mark in said), said.rpartition("last error: ")[2])
    return f"the service cannot be reached: {cause}"


def _details(error: grpc.RpcError) -> dict[type[Message], Any]:
    """The details that a call carries, one of each type."""
    trailers = [item.value for item in error.trailing_metadata() or () if item.key == TRAILER]
    try:
        status = status_pb2.Status.FromString(trailers[0] if trailers else b"")
    except DecodeError:  # not from our service
        return {}
    found: dict[type[Message], Any] = {}
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                try:
                    packed.Unpack(detail)
                except DecodeError:
                    continue
                found[kind] = detail
    return found
