"""Calls of a service, each with a deadline, its credentials, and errors of this package."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from shardsgd.errors import InputError
from shardsgd.protos.training_pb2_grpc import TrainingServiceStub
from shardsgd.remote_channel import open_channel
from shardsgd.remote_endpoint import Endpoint
from shardsgd.remote_errors import error_of

Answer = TypeVar("Answer", bound=Message)


class Calls:
    """The requests of one client, from any thread. A message GetJobRequest makes a call of GetJob.

    Args:
        endpoint: the service.
        timeout_s: deadline of a request that names none.

    Attributes:
        address: of the service.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self.address = endpoint.address
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._metadata = [] if endpoint.token is None else [("authorization", f"Bearer {endpoint.token}")]
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        self._closed = False

    def ask(self, request: Message, answer: type[Answer], *, timeout_s: float | None = None) -> Answer:
        """One request, one answer.

        Raises:
            RemoteError: it failed.
        """
        return self._answer(request, type(request), answer, self._timeout_s if timeout_s is None else timeout_s)

    def send(self, kind: type[Message], parts: Iterator[Message], answer: type[Answer], *, timeout_s: float) -> Answer:
        """Many messages of a kind, one answer.

        Raises:
            RemoteError: it failed.
        """
        return self._answer(parts, kind, answer, timeout_s)

    def stream(self, request: Message, answer: type[Answer], *, timeout_s: float) -> Generator[Answer, None, None]:
        """One request, many answers. Where the generator is closed before its end, the service is told to send no more.

        Raises:
            RemoteError: it failed, maybe after some answers.
        """
        with self._errors(), _uninterrupted() as do:
            call = do(self._method(type(request)), request, timeout=timeout_s, metadata=self._metadata)
            try:
                while (message := do(next, call, None)) is not None:
                    yield _is(answer, message)
            finally:
                call.cancel()

    def close(self) -> None:
        """Ends the connection, and all calls with it."""
        with self._lock:
            channel, self._channel, self._stub, self._closed = self._channel, None, None, True
        if channel is not None:
            channel.close()

    def _answer(self, request: Any, kind: type[Message], answer: type[Answer], timeout_s: float) -> Answer:
        with self._errors(), _uninterrupted() as do:
            call = do(self._method(kind).future, request, timeout=timeout_s, metadata=self._metadata)
            try:
                return _is(answer, do(call.result))
            finally:
                call.cancel()

    def _method(self, kind: type[Message]) -> Any:
        with self._lock:
            if self._closed:
                raise InputError("this client is closed; make a new one")
            if self._channel is None:
                self._channel = open_channel(self._endpoint)
                self._stub = TrainingServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
            return getattr(self._stub, kind.__name__.removesuffix("Request"))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            if self._closed:
                raise InputError("this client was closed during a request") from None
            raise error_of(error, self.address) from None
        except ValueError:
            # What gRPC raises where another thread closes the channel just before the call.
            if self._closed:
                raise InputError("this client was closed during a request") from None
            raise


@contextmanager
def _uninterrupted() -> Iterator[Callable[..., Any]]:
    """Does calls on a thread where no signal's exception can reach them.

    A Ctrl-C in the middle of gRPC's own Python code leaves its books in disorder, and now and then aborts the process.
    """
    with ThreadPoolExecutor(1, "shardsgd-call") as executor:
        yield lambda work, *arguments, **options: executor.submit(work, *arguments, **options).result()


def _is(kind: type[Answer], message: object) -> Answer:
    """The message with its type, which generated code does not tell."""
    assert isinstance(message, kind)
    return message
