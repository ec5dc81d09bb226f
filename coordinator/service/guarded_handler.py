"""One shape for all four kinds of gRPC methods: everything that happens in a call happens inside one guard."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from shardsgd.coordinator.service.problems import Reason, ServiceError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# In quotes: only the stubs know that it has parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Guard: TypeAlias = Callable[[Context], AbstractAsyncContextManager[None]]


def guarded(handler: Handler, guard: Guard) -> Handler:
    """The same method, with `guard(context)` around all of it: undecodable requests and answers of the wrong type included.

    Answers are written one by one from the call's own task: when the call is cancelled, the method's generator is closed
    at once, inside the guard, and not whenever the garbage collector finds it.

    Args:
        handler: of asynchronous functions, or generators.
        guard: made anew for each call.
    """
    kind = (handler.request_streaming, handler.response_streaming)
    inner: Callable[[Any, Context], Any] = getattr(handler, _NAMES[kind])
    serializer = handler.response_serializer

    def requested(request: Any, context: Context) -> Any:
        return _Requests(context) if handler.request_streaming else _decoded(request)

    async def one_answer(request: Any, context: Context) -> bytes:
        async with guard(context):
            answer = await inner(requested(request, context), context)
            # Here, so that an answer of the wrong type is found inside the guard.
            encoded: bytes = serializer(answer) if serializer else answer
            return encoded
        raise AssertionError("a guard swallows nothing")

    async def many_answers(request: Any, context: Context) -> None:
        async with guard(context):
            answers = inner(requested(request, context), context)
            if not inspect.isasyncgen(answers):
                await answers  # a method that writes to the context by itself
                return
            async with aclosing(answers):
                async for answer in answers:
                    await context.write(answer)

    make: Any = getattr(grpc, f"{_NAMES[kind]}_rpc_method_handler")
    made: Handler = make(
        many_answers if handler.response_streaming else one_answer,
        request_deserializer=_patient(handler.request_deserializer),
        response_serializer=serializer if handler.response_streaming else None,
    )
    return made


_NAMES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}

# In place of a request that could not be decoded: gRPC decodes outside the guard, where an error has no details.
_UNDECODABLE = object()


def _patient(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserializer is None:
        return None

    def decode(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            return _UNDECODABLE

    return decode


class _Requests:
    """A stream of requests, each decoded.

    It reads by itself: gRPC's own iterator is a generator, which somebody would have to close.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return _decoded(request)


def _decoded(request: Any) -> Any:
    if request is _UNDECODABLE:
        raise ServiceError(Reason.INVALID_ARGUMENT, "the bytes of the request are not a message of this method")
    return request
