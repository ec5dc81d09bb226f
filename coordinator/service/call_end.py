"""How a call ends that does not end well: refused, cancelled, or by an error of the service itself."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import grpc

from shardsgd.coordinator.service.guarded_handler import Context
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.rich_errors import TRAILER, status_of

REQUEST_ID = "x-request-id"

# gRPC's timers and the clock that a deadline is read by differ by some milliseconds.
_CLOCKS_SECONDS = 0.05
_TRACEBACK_LENGTH = 16_000


@dataclass(frozen=True)
class Incident:
    """An error that was not meant to happen.

    Attributes:
        number: 12 random hexadecimal digits, by which a caller's complaint finds the line in the log.
        refusal: all that the caller is told.
        traceback: for the log.
    """

    number: str
    refusal: ServiceError
    traceback: str


def incident_of(error: Exception, secret: Iterable[str]) -> Incident:
    """Files an error.

    Args:
        error: that ended a call.
        secret: texts that must not get into the log.
    """
    number = secrets.token_hex(6)
    text = "".join(traceback.format_exception(error))
    for word in secret:
        text = text.replace(word, "[secret]")
    refusal = ServiceError(
        Reason.INTERNAL,
        f"the service failed at this call: incident {number}; its log says more",
        metadata={"incident": number},
    )
    return Incident(number, refusal, text[-_TRACEBACK_LENGTH:])


async def refuse(context: Context, refusal: ServiceError, request_id: str) -> NoReturn:
    """Ends a call with a refusal's code, message and details.

    Raises:
        grpc.aio.AbortError: always.
    """
    status = status_of(refusal)
    trailer = ((TRAILER, status.SerializeToString()), (REQUEST_ID, request_id))
    await context.abort(refusal.code, status.message, trailer)
    raise AssertionError("abort raises")  # pragma: no cover


def code_of_cancelled(context: Context) -> str:
    """The code that the caller of a cancelled call sees: of a deadline, or of a caller who does not wait any more."""
    left: float | None = context.time_remaining()  # None without a deadline, other than the stubs say
    is_late = left is not None and left <= _CLOCKS_SECONDS
    return (grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED).name


def code_of_aborted(context: Context) -> str:
    """The code that a method has ended its call with."""
    code: grpc.StatusCode | None = context.code()
    return (code or grpc.StatusCode.UNKNOWN).name


def nothing_could_be_sent(error: Exception) -> bool:
    """Whether an error says that the caller has gone, or that the server stops: gRPC's own, but not misuse of it."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)
