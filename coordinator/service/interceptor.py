"""What every call goes through: who calls, what they may have open, how long it may take, how it ends, a line in the log."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from shardsgd.coordinator.service import call_end
from shardsgd.coordinator.service.authentication import Authentication, secrets_in
from shardsgd.coordinator.service.current_call import Call, current
from shardsgd.coordinator.service.guarded_handler import Context, Handler, guarded
from shardsgd.coordinator.service.limits import Limits
from shardsgd.coordinator.service.open_streams import OpenStreams
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.service_log import ServiceLog
from shardsgd.coordinator.service.translation import refusal

# Probes have no credentials, and learn nothing but whether the service is up.
_OPEN_TO_ALL = "/grpc.health.v1.Health/"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHOD_LENGTH = 128
_UNARY_SECONDS = 60.0
# Longer than anybody waits for one answer: as if there were no deadline.
_ABSURD_SECONDS = 3600.0


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards every method of a grpc.aio server, and calls of methods that it does not have."""

    def __init__(
        self,
        authentication: Authentication,
        limits: Limits,
        log: ServiceLog,
        *,
        private: Sequence[Path] = (),
        unary_seconds: float = _UNARY_SECONDS,
    ) -> None:
        """Guards a server.

        Args:
            authentication: how callers are told apart.
            limits: `watchers` counts here: streaming calls of one owner, or of one address where nobody asks who calls.
            log: one line a call.
            private: folders of the service whose names no caller is told.
            unary_seconds: how long the service works on a call of one request and one answer that has no sensible deadline.
        """
        self._authentication = authentication
        self._streams = OpenStreams(limits.watchers)
        self._log = log
        self._private = private
        self._unary_seconds = unary_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Puts the guard around a method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method[:_METHOD_LENGTH]
        if handler is None:
            return guarded(_UNKNOWN, partial(self._guard, method, streams=False, bounded=False))
        streams = handler.request_streaming or handler.response_streaming
        return guarded(handler, partial(self._guard, method, streams=streams, bounded=not streams))

    @asynccontextmanager
    async def _guard(self, method: str, context: Context, *, streams: bool, bounded: bool) -> AsyncIterator[None]:
        """A call from its first moment to its last."""
        started = time.monotonic()
        metadata = list(context.invocation_metadata() or ())
        call = Call(_request_id(metadata), method, context.peer(), None, self._log)
        current.set(call)  # every call has its own context
        code = grpc.StatusCode.OK.name
        failure: dict[str, object] = {"incident": None}
        refused: ServiceError | None = None
        try:
            context.set_trailing_metadata(((call_end.REQUEST_ID, call.request_id),))
            call = self._authenticated(call, metadata, context)
            current.set(call)
            async with AsyncExitStack() as stack:
                if streams:
                    stack.enter_context(self._streams.one_more(_whose(call)))
                if bounded:
                    await stack.enter_async_context(self._bounded(context))
                yield
        except asyncio.CancelledError:
            code = call_end.code_of_cancelled(context)
            raise
        except grpc.aio.AbortError:
            code = call_end.code_of_aborted(context)
            raise
        except Exception as error:
            if call_end.nothing_could_be_sent(error):
                code = grpc.StatusCode.CANCELLED.name
                raise
            refused = refusal(error, self._private)
            if refused is None:
                incident = call_end.incident_of(error, secrets_in(metadata))
                refused = incident.refusal
                failure = {"incident": incident.number, "traceback": incident.traceback}
            code = refused.code.name
        finally:
            ms = round((time.monotonic() - started) * 1e3, 3)
            call.write("call", code=code, ms=ms, **failure)
        if refused is not None:
            # Last: whoever reads an incident's number finds it in the log.
            await call_end.refuse(context, refused, call.request_id)

    def _authenticated(self, call: Call, metadata: Iterable[tuple[str, Any]], context: Context) -> Call:
        if call.method.startswith(_OPEN_TO_ALL):
            return call
        names = list(context.auth_context().get("x509_common_name", ()))
        return replace(call, caller=self._authentication.caller(metadata, names))

    @asynccontextmanager
    async def _bounded(self, context: Context) -> AsyncIterator[None]:
        left: float | None = context.time_remaining()  # None without a deadline, other than the stubs say
        if left is not None and left <= _ABSURD_SECONDS:
            yield  # gRPC cancels the call when it is over
            return
        try:
            async with asyncio.timeout(self._unary_seconds) as timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            text = f"the service works {self._unary_seconds:g} s on a call without a deadline, and it took longer"
            raise ServiceError(Reason.DEADLINE_EXCEEDED, text) from None


def _request_id(metadata: Iterable[tuple[str, Any]]) -> str:
    given = dict(metadata).get(call_end.REQUEST_ID)
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _whose(call: Call) -> str:
    """Whom a stream is counted for: the caller, or the address without its port. No owner's name has a colon."""
    return call.caller.owner if call.caller else call.peer.rpartition(":")[0] + ":"


async def _no_such_method(requests: object, context: Context) -> None:
    del requests, context
    raise ServiceError(Reason.UNKNOWN_METHOD, "the service has no such method")


# Streaming both ways fits whatever the caller takes the method for.
_UNKNOWN: Handler = grpc.stream_stream_rpc_method_handler(_no_such_method)
