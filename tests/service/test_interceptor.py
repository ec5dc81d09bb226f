"""What every call goes through, in a real server: callers, limits, refusals and their details, cancellation, the log."""

import asyncio
import io
import json
import logging
import re
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from shardsgd.coordinator.service.access import Tokens, hash_of, token_line
from shardsgd.coordinator.service.authentication import Authentication
from shardsgd.coordinator.service.current_call import audit, current_call, current_caller
from shardsgd.coordinator.service.interceptor import CallInterceptor
from shardsgd.coordinator.service.limits import Limits
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.service_log import ServiceLog
from shardsgd.errors import DataError, FieldProblem, InputError, SpecError

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
STREAMS = KINDS[1:]
ADA, BOB = f"shardsgd_{'y' * 43}", f"shardsgd_{'z' * 43}"
FIELDS = (FieldProblem("batch.size", "0", "must be at least 1"), FieldProblem("stop.steps", "-1", "must be at least 1"))


class Methods:
    """A method of every kind, which does with the text it is sent what `act` does, and a few others."""

    def __init__(self, act):
        self.act = act
        self.closed = asyncio.Event()

    async def unary_unary(self, request, context):
        return StringValue(value=await self.act(request.value))

    async def unary_stream(self, request, context):
        try:
            yield StringValue(value="first")
            yield StringValue(value=await self.act(request.value))
        finally:
            current_call()  # still there
            self.closed.set()

    async def stream_unary(self, requests, context):
        return StringValue(value=await self.act(" ".join([request.value async for request in requests])))

    async def stream_stream(self, requests, context):
        async for request in requests:
            yield StringValue(value=await self.act(request.value))

    async def writes(self, request, context):
        await context.write(StringValue(value="first"))
        await context.write(StringValue(value=await self.act(request.value)))

    async def endless(self, request, context):
        try:
            while True:
                yield StringValue(value="x" * 100_000)
        finally:
            current_call()
            self.closed.set()

    async def stubborn(self, request, context):
        try:
            await self.act(request.value)
        except asyncio.CancelledError:
            yield StringValue(value="nevertheless")

    async def wrong_answer(self, request, context):
        return 7

    async def wrong_answers(self, request, context):
        yield StringValue(value="first")
        yield 7

    def handlers(self):
        def handler(kind, behaviour):
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            return make(behaviour, StringValue.FromString, StringValue.SerializeToString)

        methods = {kind: handler(kind, getattr(self, kind)) for kind in KINDS}
        methods["writes"] = handler("unary_stream", self.writes)
        methods["endless"] = handler("unary_stream", self.endless)
        methods["stubborn"] = handler("unary_stream", self.stubborn)
        methods["wrong_answer"] = handler("unary_unary", self.wrong_answer)
        methods["wrong_answers"] = handler("unary_stream", self.wrong_answers)
        return grpc.method_handlers_generic_handler("test.Service", methods)


class Service:
    """A server on a free port, and a client of it."""

    def __init__(self, server, channel, plain, methods, log):
        self.stop = partial(server.stop, None)
        self.channel = channel
        self.plain = plain
        self.methods = methods
        self._log = log

    def call(self, method, *texts, kind=None, token=None, raw=False, metadata=(), channel=None, **options):
        """A call of a method of this name and kind, with all requests sent."""
        kind = kind or method
        make = getattr(channel or self.channel, kind)
        serializer = (lambda data: data) if raw else StringValue.SerializeToString
        path = method if method.startswith("/") else f"/test.Service/{method}"
        remote = make(path, serializer, StringValue.FromString)
        requests = list(texts) if raw else [StringValue(value=text) for text in texts]
        if token:
            metadata = [*metadata, ("authorization", f"Bearer {token}")]
        return remote(iter(requests) if kind.startswith("stream") else requests[0], metadata=metadata, **options)

    async def answers(self, method, *texts, kind=None, **options):
        """All answers."""
        call = self.call(method, *texts, kind=kind, **options)
        if (kind or method).endswith("unary"):
            return [(await call).value]
        return [answer.value async for answer in call]

    async def failure(self, method, *texts, **options):
        """How a call fails: its code, its message, its details by type.

        By a client without asyncio: the one with says INTERNAL where it is refused before it has sent its last request.
        """

        def blocking():
            with pytest.raises(grpc.RpcError) as caught:
                list(self.call(method, *texts, channel=self.plain, **options))
            return Failure(caught.value)

        return await asyncio.to_thread(blocking)

    @property
    def lines(self):
        """The log so far."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]


class Failure:
    def __init__(self, error):
        self.code, self.message = error.code(), error.details()
        self.trailer = dict(error.trailing_metadata())
        self.details = {}
        if packed := self.trailer.get("grpc-status-details-bin"):
            status = status_pb2.Status.FromString(packed)
            assert (status.code, status.message) == (self.code.value[0], self.message)
            for detail in status.details:
                for kind in (details.ErrorInfo, details.BadRequest, details.QuotaFailure, details.RetryInfo):
                    if detail.Is(kind.DESCRIPTOR):
                        self.details[kind] = kind()
                        detail.Unpack(self.details[kind])

    @property
    def info(self):
        return self.details[details.ErrorInfo]


@asynccontextmanager
async def service(act, authentication=None, limits=None, add=(), **options):
    log = io.StringIO()
    interceptor = CallInterceptor(
        authentication or Authentication(), limits or Limits(), ServiceLog(log, lambda: 1e9), **options
    )
    server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
    methods = Methods(act)
    server.add_generic_rpc_handlers([methods.handlers()])
    for more in add:
        more(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        address = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(address) as channel:
            # From another port: the two would share a connection.
            with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as plain:
                yield Service(server, channel, plain, methods, log)
    finally:
        await server.stop(None)


def run(talk, act=None, **options):
    """What `talk(service)` returns, and the log once the server has stopped."""

    async def echo(text):
        return text

    async def main():
        async with service(act or echo, **options) as running:
            found = await talk(running)
        return found, running.lines

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def grpc_log(caplog):
    """gRPC itself logs what escapes the guard: nothing may."""
    with caplog.at_level(logging.INFO):
        yield
    assert not [record for record in caplog.records if record.name.startswith(("grpc", "asyncio"))]


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(
        token_line("ada", "administrator", hash_of(ADA)) + "\n" + token_line("bob", "user", hash_of(BOB)) + "\n"
    )
    return Authentication(Tokens(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_goes_through_and_leaves_one_line(kind):
    async def talk(service):
        return await service.answers(kind, "a", "b") if kind.startswith("stream") else await service.answers(kind, "a")

    answers, lines = run(talk)
    expected = {
        "unary_unary": ["a"],
        "unary_stream": ["first", "a"],
        "stream_unary": ["a b"],
        "stream_stream": ["a", "b"],
    }
    assert answers == expected[kind]
    (line,) = lines
    assert {key: line[key] for key in ("event", "time", "owner", "method", "code", "incident")} == {
        "event": "call",
        "time": "2001-09-09T01:46:40.000+00:00",
        "owner": "local",
        "method": f"/test.Service/{kind}",
        "code": "OK",
        "incident": None,
    }
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert line["ms"] >= 0
    assert set(line) == {"event", "time", "request_id", "owner", "method", "peer", "code", "ms", "incident"}


def test_methods_that_write_by_themselves_work_too():
    answers, _ = run(lambda service: service.answers("writes", "a", kind="unary_stream"))
    assert answers == ["first", "a"]


ERRORS = {
    "refused": (
        ServiceError(Reason.ILLEGAL_STATE, "it has ended", metadata={"state": "FAILED"}),
        "FAILED_PRECONDITION",
    ),
    "again": (ServiceError(Reason.SHUTTING_DOWN, "soon", retry_after_s=2), "UNAVAILABLE"),
    "quota": (ServiceError(Reason.QUOTA_EXCEEDED, "enough"), "RESOURCE_EXHAUSTED"),
    "spec": (SpecError("job spec", FIELDS), "INVALID_ARGUMENT"),
    "data": (DataError("/srv/private/rows.csv: line 3: no number"), "INVALID_ARGUMENT"),
    "input": (InputError("no"), "INVALID_ARGUMENT"),
    "large": (
        SpecError("job spec", tuple(FieldProblem(f"f{n}", "…" * 60, "ä" * 500) for n in range(200))),
        "INVALID_ARGUMENT",
    ),
    "odd": (ServiceError(Reason.JOB_NOT_FOUND, "\n\t\0 “é” \udcff " + "…" * 2000), "NOT_FOUND"),
}


async def fail(text):
    raise ERRORS[text][0]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("kind", [*KINDS, "writes"])
def test_refusals_travel_with_their_details_whatever_the_kind_of_call(kind, name):
    options = {"kind": "unary_stream"} if kind == "writes" else {}
    failure, (line,) = run(
        lambda service: service.failure(kind, name, **options), act=fail, private=[Path("/srv/private")]
    )
    error, code = ERRORS[name]
    assert failure.code.name == line["code"] == code
    assert failure.info.domain == "shardsgd"
    assert (details.BadRequest in failure.details) == (code == "INVALID_ARGUMENT")
    assert (details.QuotaFailure in failure.details) == (name == "quota")
    assert (details.RetryInfo in failure.details) == (name == "again")
    # Nothing happened that the operator has to look into.
    assert line["incident"] is None
    assert "traceback" not in line
    if name == "spec":
        fields = failure.details[details.BadRequest].field_violations
        assert [violation.field for violation in fields] == [problem.path for problem in FIELDS]
        assert failure.info.reason == "INVALID_SPEC"
        assert failure.message == str(error)
    if name == "refused":
        assert (failure.info.reason, dict(failure.info.metadata)) == ("ILLEGAL_STATE", {"state": "FAILED"})
    if name == "data":
        assert failure.message == "…/rows.csv: line 3: no number"
        assert "/srv" not in str(failure.details)


class SecretError(Exception):
    """Of this test."""


@pytest.mark.parametrize("kind", [*KINDS, "writes"])
def test_of_unknown_errors_the_caller_sees_a_number_and_the_log_everything(kind, tokens):
    async def act(text):
        if text == "file":
            Path("/srv/secret/none").read_bytes()
        raise SecretError(f"of {text} with {ADA}")

    async def talk(service):
        options = {"token": ADA, **({"kind": "unary_stream"} if kind == "writes" else {})}
        return [await service.failure(kind, text, **options) for text in ("/srv/secret", "file")]

    failures, lines = run(talk, act=act, authentication=tokens)
    assert len({failure.info.metadata["incident"] for failure in failures}) == 2
    for failure, line, word in zip(failures, lines, ("SecretError", "FileNotFoundError"), strict=True):
        assert failure.code is grpc.StatusCode.INTERNAL
        assert failure.info.reason == "INTERNAL"
        number = failure.info.metadata["incident"]
        assert re.fullmatch("[0-9a-f]{12}", number)
        assert number in failure.message
        seen = f"{failure.message} {failure.details} {failure.trailer}"
        assert not [leak for leak in ("Traceback", "srv", word, ".py", "test_interceptor") if leak in seen]
        assert (line["code"], line["incident"], line["owner"]) == ("INTERNAL", number, "ada")
        assert "Traceback" in line["traceback"]
        assert word in line["traceback"]
        assert Path(__file__).name in line["traceback"]
        assert ADA not in json.dumps(line)


@pytest.mark.parametrize(("method", "kind"), [("wrong_answer", "unary_unary"), ("wrong_answers", "unary_stream")])
def test_an_answer_that_cannot_be_sent_is_an_incident(method, kind):
    failure, (line,) = run(lambda service: service.failure(method, "a", kind=kind))
    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.info.metadata["incident"] == line["incident"]
    assert "int" not in failure.message.split()


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_no_message_are_refused(kind):
    failure, (line,) = run(lambda service: service.failure(kind, b"\xff\xff\xff", raw=True))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.info.reason == "INVALID_ARGUMENT"
    assert [violation.field for violation in failure.details[details.BadRequest].field_violations] == [""]
    assert line["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["/test.Service/Nothing", "/test.Nothing/unary_unary", "/" + "x" * 3000])
def test_methods_that_there_are_not_are_refused_with_details(kind, method):
    failure, (line,) = run(lambda service: service.failure(method, "a", kind=kind))
    assert failure.code is grpc.StatusCode.UNIMPLEMENTED
    assert failure.info.reason == "UNKNOWN_METHOD"
    assert line["code"] == "UNIMPLEMENTED"
    assert len(line["method"]) < 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("token", [None, "x", "shardsgd_" + "a" * 43])
def test_without_a_known_token_no_method_runs(kind, token, tokens):
    ran = []

    async def act(text):
        ran.append(text)
        return text

    failure, (line,) = run(lambda service: service.failure(kind, "a", token=token), act=act, authentication=tokens)
    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    assert failure.info.reason == "UNAUTHENTICATED"
    assert not ran
    assert (line["code"], line["owner"]) == ("UNAUTHENTICATED", None)


def test_methods_that_there_are_not_are_told_to_known_callers_only(tokens):
    failure, _ = run(lambda service: service.failure("/a/b", "a", kind="unary_unary"), authentication=tokens)
    assert failure.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("kind", [*KINDS, "writes"])
def test_the_caller_is_known_to_all_that_runs_for_the_call_and_to_no_other(kind, tokens):
    async def act(text):
        await asyncio.sleep(0)
        caller = await asyncio.to_thread(current_caller)
        return f"{text} {caller.owner} {caller.administrator} {current_call().method}"

    async def talk(service):
        options = {"kind": "unary_stream"} if kind == "writes" else {}
        calls = [service.answers(kind, f"{n}", token=(ADA, BOB)[n % 2], **options) for n in range(20)]
        return [answers[-1] for answers in await asyncio.gather(*calls)]

    answers, lines = run(talk, act=act, authentication=tokens)
    who = ("ada True", "bob False")
    assert answers == [f"{n} {who[n % 2]} /test.Service/{kind}" for n in range(20)]
    assert sorted(line["owner"] for line in lines) == ["ada"] * 10 + ["bob"] * 10
    with pytest.raises(LookupError):
        current_caller()


def test_tokens_are_never_logged(tokens):
    async def talk(service):
        await service.answers("unary_unary", "a", token=ADA)
        await service.failure("unary_unary", "a", token=ADA + BOB)

    _, lines = run(talk, authentication=tokens)
    assert len(lines) == 2
    assert ADA not in json.dumps(lines)
    assert BOB not in json.dumps(lines)


def test_a_request_keeps_its_callers_name_and_every_answer_says_it():
    async def talk(service):
        found = []
        for given in (None, "abc-1.2_3", "x" * 65, "a b", 'a"\\', ""):
            metadata = [] if given is None else [("x-request-id", given)]
            call = service.call("unary_unary", "a", metadata=metadata)
            await call
            found.append(dict(await call.trailing_metadata())["x-request-id"])
        failure = await service.failure("unary_unary", b"\xff", raw=True, metadata=[("x-request-id", "mine")])
        return [*found, failure.trailer["x-request-id"]]

    found, lines = run(talk)
    assert found[1] == "abc-1.2_3"
    assert found[6] == "mine"
    made = [found[0], *found[2:6]]
    assert len(set(made)) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in made)
    assert [line["request_id"] for line in lines] == found


def test_what_a_call_changes_is_logged_with_who_did_it(tokens):
    async def act(text):
        await asyncio.to_thread(audit, "pause", job_id=text)
        return text

    _, lines = run(lambda service: service.answers("unary_unary", "j\n1", token=BOB), act=act, authentication=tokens)
    mutation, call = lines
    assert (mutation["event"], mutation["action"], mutation["job_id"], mutation["owner"]) == (
        "mutation",
        "pause",
        "j\n1",
        "bob",
    )
    assert mutation["request_id"] == call["request_id"]
    assert mutation["peer"] == call["peer"]


class Waiting:
    """An act that waits until it is let go, and knows how many came and how many were cancelled."""

    def __init__(self):
        self.came = self.cancelled = 0
        self.go = asyncio.Event()
        self._news = asyncio.Event()

    async def __call__(self, text):
        self.came += 1
        self._news.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return text

    async def until(self, came):
        while self.came < came:
            self._news.clear()
            await self._news.wait()


@pytest.mark.parametrize("kind", [*KINDS, "writes"])
def test_a_cancelled_call_ends_what_runs_for_it_and_is_no_error(kind):
    act = Waiting()

    async def talk(service):
        call = service.call(kind, "a", **({"kind": "unary_stream"} if kind == "writes" else {}))
        reading = asyncio.ensure_future(_drained(call))
        await act.until(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        if kind == "unary_stream":
            await service.methods.closed.wait()
        await _logged(service)

    _, (line,) = run(talk, act=act)
    assert act.cancelled == 1
    assert line["code"] == "CANCELLED"
    assert line["incident"] is None
    assert "traceback" not in line


async def _drained(call):
    if hasattr(call, "__aiter__"):
        return [answer async for answer in call]
    return await call


async def _logged(service, lines=1):
    """Waits until the server has finished with so many calls, which a caller who does not wait cannot know."""
    while len(service.lines) < lines:
        await asyncio.sleep(0.01)


def test_a_stream_that_is_being_written_when_its_reader_goes_is_closed_at_once():
    async def talk(service):
        call = service.call("endless", "a", kind="unary_stream")
        await call.read()
        call.cancel()
        await service.methods.closed.wait()
        await _logged(service)

    _, (line,) = run(talk)
    assert (line["code"], line["incident"]) == ("CANCELLED", None)


def test_an_answer_to_a_caller_who_has_gone_is_no_error():
    act = Waiting()

    async def talk(service):
        call = service.call("stubborn", "a", kind="unary_stream")
        await act.until(1)
        call.cancel()
        await _logged(service)

    _, (line,) = run(talk, act=act)
    assert (line["code"], line["incident"]) == ("CANCELLED", None)


def test_a_deadline_that_has_passed_is_told_from_a_caller_who_went():
    act = Waiting()

    async def talk(service):
        failure = await service.failure("unary_unary", "a", timeout=1.0)
        await _logged(service)
        return failure

    failure, (line,) = run(talk, act=act)
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert line["code"] == "DEADLINE_EXCEEDED"
    assert act.cancelled == 1


@pytest.mark.parametrize("timeout", [None, 1e7], ids=["none", "absurd"])
def test_without_a_sensible_deadline_the_service_sets_one(timeout):
    act = Waiting()
    failure, (line,) = run(
        lambda service: service.failure("unary_unary", "a", timeout=timeout), act=act, unary_seconds=0.05
    )
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert failure.info.reason == "DEADLINE_EXCEEDED"
    assert line["code"] == "DEADLINE_EXCEEDED"
    assert act.cancelled == 1


@pytest.mark.parametrize(("kind", "timeout"), [("unary_unary", 60.0), *((kind, None) for kind in STREAMS)])
def test_streams_and_calls_with_a_deadline_may_take_longer(kind, timeout):
    act = Waiting()

    async def talk(service):
        asyncio.get_running_loop().call_later(0.2, act.go.set)
        return await service.answers(kind, "a", timeout=timeout)

    answers, _ = run(talk, act=act, unary_seconds=0.02)
    assert answers[-1] == "a"


def test_a_methods_own_timeout_is_an_error_like_others():
    async def act(text):
        raise TimeoutError("of something inside")

    failure, (line,) = run(lambda service: service.failure("unary_unary", "a"), act=act)
    assert failure.code is grpc.StatusCode.INTERNAL
    assert line["incident"]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_caller_has_so_many_streams_at_a_time_and_no_more(kind, tokens):
    act = Waiting()

    async def talk(service):
        mine = [asyncio.ensure_future(service.answers(kind, "a", token=ADA)) for _ in range(2)]
        await act.until(2)
        failure = await service.failure(kind, "a", token=ADA)
        act.go.set()
        # Neither other callers nor calls of one answer are held up, and those that have ended make room.
        await service.answers(kind, "a", token=BOB)
        await service.answers("unary_unary", "a", token=ADA)
        await asyncio.gather(*mine)
        await asyncio.gather(*(service.answers(kind, "a", token=ADA) for _ in range(2)))
        return failure

    failure, lines = run(talk, act=act, authentication=tokens, limits=Limits(watchers=2))
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.info.reason == "TOO_MANY_WATCHERS"
    assert failure.info.metadata["limit"] == "2"
    assert {details.QuotaFailure, details.RetryInfo} <= set(failure.details)
    assert [line["code"] for line in lines].count("RESOURCE_EXHAUSTED") == 1
    assert len(lines) == 7


def test_streams_that_were_cancelled_make_room():
    act = Waiting()

    async def talk(service):
        for number in range(1, 6):
            call = service.call("unary_stream", "a")
            await call.read()
            await act.until(number)
            call.cancel()
            await _logged(service, number)

    _, lines = run(talk, act=act, limits=Limits(watchers=1))
    assert [line["code"] for line in lines] == ["CANCELLED"] * 5


def with_health_and_reflection(server):
    condition = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(condition, server)
    reflection.enable_server_reflection(("test.Service", reflection.SERVICE_NAME), server)


def test_health_is_for_everybody_and_reflection_for_callers(tokens):
    async def talk(service):
        stub = health_pb2_grpc.HealthStub(service.channel)
        up = await stub.Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        changes = [(await watch.read()).status]
        other = health_pb2_grpc.HealthStub(service.plain)
        with pytest.raises(grpc.RpcError) as second:
            await asyncio.to_thread(next, other.Watch(health_pb2.HealthCheckRequest()))
        watch.cancel()
        await _logged(service, 4)

        reflect = reflection_pb2_grpc.ServerReflectionStub(service.channel).ServerReflectionInfo
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        blocking = reflection_pb2_grpc.ServerReflectionStub(service.plain).ServerReflectionInfo
        with pytest.raises(grpc.RpcError) as refused:
            await asyncio.to_thread(next, blocking(iter([request])))
        answer = await reflect(iter([request]), metadata=[("authorization", f"Bearer {BOB}")]).read()
        names = [found.name for found in answer.list_services_response.service]
        codes = [caught.value.code().name for caught in (unknown, second, refused)]
        return up.status, changes, codes, names

    (status, changes, codes, names), lines = run(
        talk, authentication=tokens, limits=Limits(watchers=1), add=[with_health_and_reflection]
    )
    assert status == changes[0] == health_pb2.HealthCheckResponse.SERVING
    assert codes == ["NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"]
    assert "test.Service" in names
    assert [line["code"] for line in lines[:4]] == ["OK", "NOT_FOUND", "RESOURCE_EXHAUSTED", "CANCELLED"]
    assert {line["owner"] for line in lines[:4]} == {None}
    assert not [line for line in lines if line["incident"]]


def test_a_server_that_stops_ends_its_calls_without_errors():
    act = Waiting()

    async def main():
        async with service(act) as running:
            calls = [asyncio.ensure_future(running.answers(kind, "a")) for kind in KINDS]
            await act.until(len(KINDS))
            await running.stop()
            found = await asyncio.gather(*calls, return_exceptions=True)
        return found, running.lines

    found, lines = asyncio.run(main())
    assert {error.code().name for error in found} <= {"UNAVAILABLE", "CANCELLED"}
    assert [(line["code"], line["incident"]) for line in lines] == [("CANCELLED", None)] * 4


def test_a_log_that_has_gone_stops_nobody():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    ServiceLog(Gone()).line("call")
    closed = io.StringIO()
    closed.close()
    ServiceLog(closed).line("call")


def test_a_line_is_a_line_whatever_is_in_it():
    log = io.StringIO()
    ServiceLog(log).line("call", method="\n\x1b[2J\u2028é\udcff", path=Path("/x"))
    assert log.getvalue().isascii()
    assert len(log.getvalue().splitlines()) == 1
    assert json.loads(log.getvalue())["method"] == "\n\x1b[2J\u2028é\udcff"
