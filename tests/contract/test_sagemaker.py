"""The adapter against real servers: the local SageMaker, and one that misbehaves."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway.errors import WAIT_SECONDS, ErrorCode, Failure, Outcome
from gateway.local.builtin import BuiltinModel
from gateway.local.faults import Fault
from gateway.local.platform import Endpoint
from gateway.local.server import running
from gateway.protocol.options import OPTIONS, CallOptions
from gateway.sagemaker.errors import MAX_RETRY_AFTER
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.runtime import NotConfigured
from gateway.sagemaker.transport import Transport
from gateway.session.ports import ModelError, ModelReply, ModelRequest, ModelSession
from tests.support import transports
from tests.support.calls import invoke
from tests.support.listener import listening
from tests.support.timing import UNIT

ASK = ModelRequest(body=b'{"text": "hi"}', content_type="application/json")


def model_of(
    client: Transport, profile: str = "container-standards", **defaults: Any
) -> SageMakerModel:
    return SageMakerModel(client, "my-endpoint", PROFILES[profile], CallOptions(**defaults))


async def failure(call: Coroutine[Any, Any, object]) -> Failure:
    with pytest.raises(ModelError) as caught:
        await call
    return caught.value.failure


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens on the other side of a connection."""
    async with asyncio.timeout(20 * UNIT):
        while not condition():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01 * UNIT)


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[Endpoint, str]]:
    endpoint = Endpoint("my-endpoint", [BuiltinModel("i-1"), BuiltinModel("i-2")])
    async with running([endpoint]) as url:
        yield endpoint, url


def body(reply: ModelReply) -> bytes:
    assert reply.body is not None
    return reply.body


@pytest.mark.parametrize("dialect", ["container-standards", "torchserve"])
async def test_open_invoke_close(dialect: Any) -> None:
    container = BuiltinModel("i-1", dialect=dialect)
    async with (
        running([Endpoint("my-endpoint", [container])]) as url,
        transports.client(url) as client,
    ):
        model = model_of(client, dialect)
        session = await model.open("p")
        assert session.expires_at is not None
        assert b'"turn":1' in body(await invoke(model, ASK, session))
        reply = await invoke(model, ASK, session)
        assert b'"turn":2' in body(reply)
        assert reply == ModelReply(
            body=reply.body,
            content_type="application/json",
            variant="AllTraffic",
            custom_attributes="turn=2;instance=i-1",
        )
        await model.close(session)
        await model.close(session)
        lost = await failure(invoke(model, ASK, session))
        assert lost.code is ErrorCode.SESSION_LOST


async def test_the_first_turn_opens() -> None:
    container = BuiltinModel("i-1", dialect="first-message")
    async with (
        running([Endpoint("my-endpoint", [container])]) as url,
        transports.client(url) as client,
    ):
        model = model_of(client, "first-message")
        reply = await invoke(model, ASK)
        assert reply.new_session is not None
        assert b'"turn":1' in body(reply)
        reply = await invoke(model, ASK, reply.new_session)
        assert b'"turn":2' in body(reply)


async def test_no_sessions(endpoint: tuple[Endpoint, str]) -> None:
    async with transports.client(endpoint[1]) as client:
        for profile in ("stateless", "prefix-aware"):
            model = model_of(client, profile)
            seen = {(await invoke(model, ASK)).custom_attributes for _ in range(4)}
            assert len(seen) == (1 if profile == "prefix-aware" else 2)
            await model.close(ModelSession("never-opened"))


async def test_replies_speak_of_sessions(endpoint: tuple[Endpoint, str]) -> None:
    async with transports.client(endpoint[1]) as client:
        model = model_of(client)
        session = await model.open("p")
        renew = ModelRequest(body=b'{"text": "/renew"}', content_type="application/json")
        reply = await invoke(model, renew, session)
        assert reply.new_session not in {None, session}
        close = ModelRequest(body=b'{"text": "/close"}', content_type="application/json")
        assert (await invoke(model, close, reply.new_session)).session_closed


@pytest.mark.parametrize(
    ("error", "code", "outcome", "retry"),
    [
        ("ThrottlingException", ErrorCode.THROTTLED, Outcome.NOT_INVOKED, True),
        ("ModelNotReadyException", ErrorCode.MODEL_NOT_READY, Outcome.NOT_INVOKED, True),
        ("ServiceUnavailable", ErrorCode.UNAVAILABLE, Outcome.UNKNOWN, False),
        ("InternalFailure", ErrorCode.UNAVAILABLE, Outcome.UNKNOWN, False),
        ("InternalDependencyException", ErrorCode.UNAVAILABLE, Outcome.UNKNOWN, False),
        ("ModelError", ErrorCode.MODEL_ERROR, Outcome.INVOKED, False),
    ],
)
async def test_errors_of_the_platform_and_one_attempt(
    endpoint: tuple[Endpoint, str],
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    code: ErrorCode,
    outcome: Outcome,
    retry: bool,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    platform, url = endpoint
    async with transports.client(url) as client:
        model = model_of(client)
        session = await model.open("p")
        platform.faults.add(Fault(error=error))
        got = await failure(invoke(model, ASK, session))
        assert (got.code, got.outcome, got.may_retry) == (code, outcome, retry)
        # A second attempt would have been answered.
        assert sum(instance.invocations for instance in platform.instances) == 1


@pytest.mark.parametrize(
    "message", ["Session not found", "is closed, or expired", "Not received sequence_start"]
)
async def test_errors_that_mean_a_lost_session(
    endpoint: tuple[Endpoint, str], message: str
) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        model = model_of(client)
        session = await model.open("p")
        platform.faults.add(Fault(error="ModelError", status=400, message=message))
        assert (await failure(invoke(model, ASK, session))).code is ErrorCode.SESSION_LOST


async def test_what_opens_a_session_loses_none(endpoint: tuple[Endpoint, str]) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        fault = Fault(error="ModelError", status=400, message="Session not found", times=2)
        platform.faults.add(fault)
        assert (await failure(model_of(client).open("p"))).code is ErrorCode.MODEL_ERROR
        first = invoke(model_of(client, "first-message"), ASK)
        assert (await failure(first)).code is ErrorCode.MODEL_ERROR


async def test_an_instance_that_is_gone(endpoint: tuple[Endpoint, str]) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        model = model_of(client)
        session = await model.open("p")
        for instance in platform.instances:
            platform.lose(instance.name)
        assert (await failure(invoke(model, ASK, session))).code is ErrorCode.SESSION_LOST
        await model.close(session)
        assert (await failure(model.open("p"))).code is ErrorCode.UNAVAILABLE


async def test_no_room() -> None:
    container = BuiltinModel("i-1", dialect="torchserve", max_sessions=0)
    async with (
        running([Endpoint("my-endpoint", [container])]) as url,
        transports.client(url) as client,
    ):
        got = await failure(model_of(client, "torchserve").open("p"))
        assert (got.code, got.may_retry) == (ErrorCode.UNAVAILABLE, True)


@pytest.mark.parametrize("told", ["", "-bad-", "; Expires=2030-01-01T00:00:00Z", "a" * 257])
async def test_no_session_opened(endpoint: tuple[Endpoint, str], told: str) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        platform.faults.add(Fault(new_session_id=told))
        got = await failure(model_of(client).open("p"))
        assert (got.code, got.outcome) == (ErrorCode.MODEL_ERROR, Outcome.INVOKED)


async def test_an_endpoint_that_is_not_there(endpoint: tuple[Endpoint, str]) -> None:
    async with transports.client(endpoint[1]) as client:
        model = SageMakerModel(client, "elsewhere", PROFILES["stateless"], CallOptions())
        got = await failure(invoke(model, ASK))
        assert (got.code, got.may_retry) == (ErrorCode.UNAVAILABLE, False)
        assert "elsewhere" not in got.message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
        ("AWS_ACCESS_KEY_ID", "wrong"),
        ("AWS_ACCESS_KEY_ID", None),
    ],
)
async def test_credentials(
    endpoint: tuple[Endpoint, str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str | None,
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    async with transports.client(endpoint[1]) as client:
        got = await failure(model_of(client).open("p"))
        assert (got.code, got.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
        assert not got.may_retry
        assert "log says how" in got.message


async def test_every_parameter_reaches_the_platform(endpoint: tuple[Endpoint, str]) -> None:
    """A value that the API model refuses is refused by name, so each has got there."""
    async with transports.client(endpoint[1]) as client:
        model = model_of(client, "stateless")
        names = {"accept", "custom_attributes", "enable_explanations", "inference_id"}
        fine: dict[str, Any] = dict.fromkeys(names, "x=1")
        reply = await invoke(
            model, ModelRequest(body=b"{}", content_type="application/json", **fine)
        )
        assert reply.body
        for name in (
            "accept",
            "custom_attributes",
            "enable_explanations",
            "inference_component_name",
            "inference_id",
            "target_container_hostname",
            "target_model",
            "target_variant",
        ):
            given: dict[str, Any] = {name: "x" * 1025}
            request = ModelRequest(body=b"{}", content_type="application/json", **given)
            got = await failure(invoke(model, request))
            assert (got.code, got.outcome) == (ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED)
            by_route = model_of(client, "stateless", **given)
            got = await failure(invoke(by_route, ASK))
            assert got.code is ErrorCode.VALIDATION_ERROR
            session = await model_of(client).open("p")
            keeping = model_of(client, **given)
            if name in names:  # about a turn's reply, and so no part of what opens and closes
                await keeping.close(await keeping.open("p"))
            else:
                got = await failure(keeping.open("p"))
                assert got.code is ErrorCode.VALIDATION_ERROR
                got = await failure(keeping.close(session))
                assert got.code is ErrorCode.VALIDATION_ERROR


@pytest.mark.parametrize(
    "value", ["a\r\nx-evil: b", "a\nb", "a\n", "a\0b", "a\tb", "a\x7fb", "é", "\ud800"]
)
async def test_fields_that_no_header_can_carry(endpoint: tuple[Endpoint, str], value: str) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        model = model_of(client, "stateless")
        for name in OPTIONS:
            request = msgspec.structs.replace(ASK, **{name: value})
            got = await failure(invoke(model, request))
            assert (got.code, got.outcome) == (ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED)
            assert f"`{name}`" in got.message
            assert value not in got.message
    assert sum(instance.invocations for instance in platform.instances) == 0


async def test_a_body_that_the_platform_does_not_take(endpoint: tuple[Endpoint, str]) -> None:
    async with transports.client(endpoint[1]) as client:
        request = ModelRequest(body=b"x" * 6_291_457, content_type="text/plain")
        got = await failure(invoke(model_of(client, "stateless"), request))
        assert got.outcome is Outcome.NOT_INVOKED


async def test_a_reply_that_is_too_large(endpoint: tuple[Endpoint, str]) -> None:
    async with transports.client(endpoint[1]) as client:
        request = ModelRequest(body=b"/bytes 1000001", content_type="text/plain")
        got = await failure(invoke(model_of(client, "stateless"), request))
        assert (got.code, got.outcome) == (ErrorCode.TOO_LARGE, Outcome.INVOKED)


async def test_a_cancelled_call_closes_its_request(endpoint: tuple[Endpoint, str]) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        model = model_of(client, "stateless")
        request = ModelRequest(body=b"/sleep 60", content_type="text/plain")
        call = asyncio.create_task(invoke(model, request))
        await until(lambda: sum(instance.invocations for instance in platform.instances) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: platform.abandoned == 1)
        assert (await invoke(model, ASK)).body


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def misbehaving(handle: Handler) -> AsyncIterator[str]:
    """A server that does as it likes with a connection, once it has read a request's head."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handle(reader, writer)

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}"


def answering(answer: bytes) -> Handler:
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return handle


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client gives up


async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    await reader.read()


async def resetting(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def error(status: str, code: str, *headers: str) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"x-amzn-errortype: {code}", *headers))
    return f"{head}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}".encode()


@pytest.mark.parametrize(
    ("handle", "code", "outcome"),
    [
        (silent, ErrorCode.TIMEOUT, Outcome.UNKNOWN),
        (resetting, ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        (answering(b""), ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        (answering(b"nonsense\r\n\r\n"), ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        (
            answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
            ErrorCode.STREAM_BROKEN,
            Outcome.INVOKED,
        ),
        (stalling, ErrorCode.TIMEOUT, Outcome.INVOKED),
        (
            # What is lost here may have been a good reply, or an error.
            answering(b"HTTP/1.1 200 OK\r\nx-a: \xff\r\ncontent-length: 2\r\n\r\n{}"),
            ErrorCode.UNAVAILABLE,
            Outcome.UNKNOWN,
        ),
        (
            answering(error("413 Too Large", "RequestEntityTooLarge")),
            ErrorCode.TOO_LARGE,
            Outcome.NOT_INVOKED,
        ),
        (answering(error("418 Teapot", "Novelty")), ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        (answering(error("403 Forbidden", "Novelty")), ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED),
    ],
)
async def test_what_breaks_on_the_way(handle: Handler, code: ErrorCode, outcome: Outcome) -> None:
    patience = (0.2 if code is ErrorCode.TIMEOUT else 20) * UNIT
    async with misbehaving(handle) as url, transports.client(url, read_timeout=patience) as client:
        got = await failure(invoke(model_of(client, "stateless"), ASK))
        assert (got.code, got.outcome) == (code, outcome)
        assert not got.may_retry


async def test_an_error_without_end() -> None:
    """Its body is never read to the end, and its headers say what it is."""
    ended = asyncio.Event()

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 400 Bad\r\nx-amzn-errortype: ThrottlingException\r\n"
            b"content-length: 1000000000000\r\n\r\n"
        )
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except ConnectionError:
            ended.set()

    async with misbehaving(endless) as url, transports.client(url) as client:
        got = await failure(invoke(model_of(client, "stateless"), ASK))
        assert (got.code, got.outcome) == (ErrorCode.THROTTLED, Outcome.NOT_INVOKED)
        async with asyncio.timeout(5 * UNIT):
            await ended.wait()


def dripping(head: bytes) -> Handler:
    """Never silent for long, and never done."""

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02 * UNIT)

    return handle


@pytest.mark.parametrize(
    ("head", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", Outcome.INVOKED),
        (b"HTTP/1.1 200 OK\r\nx-never-ends: ", Outcome.UNKNOWN),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 5000\r\n\r\n", Outcome.UNKNOWN),
    ],
)
async def test_a_reply_that_drips(head: bytes, outcome: Outcome) -> None:
    async with (
        misbehaving(dripping(head)) as url,
        transports.client(url, call_timeout=3 * UNIT) as client,
    ):
        async with asyncio.timeout(20 * UNIT):
            got = await failure(invoke(model_of(client, "stateless"), ASK))
        assert (got.code, got.outcome) == (ErrorCode.TIMEOUT, outcome)


async def test_waiting_for_a_connection_ends() -> None:
    taken = asyncio.Event()

    async def busy(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        taken.set()
        await reader.read()

    async with misbehaving(busy) as url, transports.client(url, connections=1) as client:
        patient = invoke(model_of(client, "stateless"), ASK)
        first = asyncio.create_task(patient)
        async with asyncio.timeout(5 * UNIT):
            await taken.wait()
            transport: Any = copy.copy(client)
            transport.limits = msgspec.structs.replace(transport.limits, call_timeout=0.2 * UNIT)
            second = invoke(model_of(transport, "stateless"), ASK)
            got = await failure(second)
        assert (got.code, got.outcome) == (ErrorCode.TIMEOUT, Outcome.NOT_INVOKED)
        assert not first.done()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("999999999", MAX_RETRY_AFTER),
        ("Fri, 31 Dec 2100 23:59:59 GMT", None),
        ("soon", None),
        ("-1", None),
        ("inf", None),
    ],
)
async def test_when_to_come_back(header: str, seconds: float | None) -> None:
    answer = answering(error("429 Too Many", "ThrottlingException", f"retry-after: {header}"))
    async with misbehaving(answer) as url, transports.client(url) as client:
        got = await failure(model_of(client).open("p"))
        assert (got.code, got.retry_after) == (ErrorCode.THROTTLED, seconds)
        assert got.wait == (seconds or WAIT_SECONDS)


async def test_nobody_listens() -> None:
    async with transports.client("http://127.0.0.1:9") as client:
        got = await failure(model_of(client).open("p"))
        assert (got.code, got.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
        assert got.may_retry


async def test_no_proxy_between_here_and_here(
    endpoint: tuple[Endpoint, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with misbehaving(answering(error("418 Teapot", "Novelty"))) as proxy:
        for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        for url in (endpoint[1], endpoint[1].replace("127.0.0.1", "localhost")):
            async with transports.client(url) as client:
                assert (await invoke(model_of(client, "stateless"), ASK)).body
        async with transports.client("http://sagemaker.invalid", transport="auto") as client:
            got = await failure(model_of(client).open("p"))
            assert got.outcome is Outcome.UNKNOWN  # as the proxy answers


@pytest.mark.parametrize("url", ["http://[::1", "http:///"])
async def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(NotConfigured):
        async with transports.client(url):
            pass


async def test_a_close_that_fails_is_told(endpoint: tuple[Endpoint, str]) -> None:
    platform, url = endpoint
    async with transports.client(url) as client:
        model = model_of(client)
        session = await model.open("p")
        platform.faults.add(Fault(error="InternalFailure"))
        assert (await failure(model.close(session))).code is ErrorCode.UNAVAILABLE
