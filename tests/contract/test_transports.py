"""Both transports do the same: they send the same bytes, and make the same of an answer.

Left out of the comparison is what differs from call to call: ``amz-sdk-invocation-id``, of which
only the form is looked at. Time stands still, so dates and signatures are compared too.
"""

import asyncio
import re
import struct
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeVar
from zlib import crc32

import pytest
import uvloop
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.streams import Part, Splitter, StreamKind, splitter
from gateway.sagemaker.errors import failure_of
from gateway.sagemaker.lean import LeanTransport
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.transport import StreamedReply, Transport, result_of
from tests.support import transports
from tests.support.listener import listening
from tests.support.timing import UNIT

NOW = datetime(2026, 11, 21, 8, 30, 15, tzinfo=UTC)
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

T = TypeVar("T")


@pytest.fixture(autouse=True)
def transport() -> None:
    """Both are at work in each test here."""


class Server:
    """Keeps what is sent to it, and answers with bytes that it was given, however wrong.

    Attributes:
        requests: Heads and bodies.
        connections: How many have been made.
        answering: Whether it is to close one that it has a request from.
        answer: What it answers.
        then: What it does with the connection after that: ``keep``, ``close`` or ``reset``.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.answering = False
        self.answer = GOOD
        self.then = "keep"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.requests.append((head, body))
                self.answering = self.then != "keep"
                writer.write(self.answer)
                await writer.drain()
                if self.then == "reset":
                    await asyncio.sleep(0.01 * UNIT)  # what was written is not to be lost
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
                if self.then != "keep":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.answering = False


class Both:
    """The two transports, calling one server.

    Attributes:
        server: The server.
        lean: The one.
        aio: The other.
    """

    def __init__(self) -> None:
        self.server = Server()
        self.lean: Transport
        self.aio: Transport
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = AsyncExitStack()

    def start(self, **options: Any) -> None:
        self.run(self._start(options))

    def stop(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(what)

    async def _start(self, options: dict[str, Any]) -> None:
        path = options.pop("path", "")
        port = await self._stack.enter_async_context(listening(self.server.serve))
        settings: dict[str, Any] = {
            "region": "eu-central-1",
            "read_timeout": 1.0 * UNIT,
            "reply_bytes": 100_000,
            "clock": NOW.timestamp,
            **options,
        }
        enter, url = self._stack.enter_async_context, f"http://127.0.0.1:{port}{path}"
        self.lean = await enter(transports.client(url, **settings, transport="lean"))
        self.aio = await enter(transports.client(url, **settings, transport="aiobotocore"))
        assert isinstance(self.lean, LeanTransport)

    def sent(self, parameters: dict[str, Any], *, stream: bool = False) -> list[Any]:
        """What each of them sends; the lean one is first."""
        self.server.requests.clear()
        for runtime in (self.lean, self.aio):
            self.run(came_of(runtime, parameters, stream=stream))
        return [comparable(head, body) for head, body in self.server.requests]

    def came(self, *, stream: bool = False) -> list[Any]:
        """What each of them makes of the server's answer."""
        parameters = {"EndpointName": "e", "Body": b"{}", "SessionId": "s-1"}
        came = []
        for runtime in (self.lean, self.aio):
            came.append(self.run(came_of(runtime, parameters, stream=stream)))
            if self.server.then != "keep":
                self.run(self._closed())
        return came

    async def _closed(self) -> None:
        """Wait until nothing is left of what the server has closed."""
        async with asyncio.timeout(20 * UNIT):
            while self.server.answering:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.001 * UNIT)
        await asyncio.sleep(0.001 * UNIT)


async def came_of(runtime: Transport, parameters: dict[str, Any], *, stream: bool) -> Any:
    """What comes of one call, so that it can be compared."""
    parts: list[Part] = []
    heads: list[StreamedReply] = []

    def begin(head: StreamedReply) -> Splitter:
        heads.append(head)
        return splitter(StreamKind.RAW)

    result: object
    try:
        if stream:
            result = await result_of(
                partial(
                    runtime.invoke_endpoint_with_response_stream,
                    parameters,
                    begin,
                    parts.extend,
                )
            )
            assert [result] == heads
        else:
            response = await result_of(partial(runtime.invoke_endpoint, parameters))
            response.pop("ResponseMetadata", None)
            result = response
    except ClientError as error:
        metadata = {"RetryAttempts", "MaxAttemptsReached"}
        answer = {key: value for key, value in error.response.items() if key != "Body"}
        answer["ResponseMetadata"] = {
            key: value
            for key, value in error.response["ResponseMetadata"].items()
            if key not in metadata
        }
        result = type(error).__name__, error.operation_name, answer, meaning(error)
    except Exception as error:  # noqa: BLE001 - all of them are to mean the same
        result = meaning(error)
    return result, b"".join(part for part in parts if isinstance(part, bytes))


def meaning(error: Exception) -> Failure:
    failure = failure_of(error, PROFILES["container-standards"], in_session=True)
    return structs.replace(failure, facts={})  # for people, who are told of what was raised


def comparable(head: bytes, body: bytes) -> Any:
    """A request in an order of its own, without what is different in each."""
    first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = sorted(line.partition(": ") for line in lines)
    (invocation,) = [value for name, _, value in headers if name == "amz-sdk-invocation-id"]
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(uuid, invocation)
    kept = [header for header in headers if header[0] != "amz-sdk-invocation-id"]
    return first, kept, body


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW)
    both = Both()
    yield both
    both.stop()


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both, for as long as there are examples to try."""
    nowhere = str(tmp_path_factory.getbasetemp() / "no-such-file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
        patch.setattr("botocore.auth.get_current_datetime", lambda: NOW)
        both = Both()
        both.start()
        yield both
        both.stop()


_PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
_TRICKY = st.sampled_from(
    ["", "a", " a", "a ", "a  b", 'a=b, c="d  e"', ": ", "%s %(path)s", "a,b", "NEW_SESSION", "é"]
)
_SOME = _PRINTABLE | _TRICKY.filter(str.isascii)
_NAMES = st.text(st.sampled_from("abzAZ09-._~ /%+:@é"), max_size=12)
_BOTH_HAVE = (
    *("ContentType", "Accept", "CustomAttributes", "TargetVariant", "TargetContainerHostname"),
    *("InferenceId", "InferenceComponentName", "SessionId", "PrefixAwareId"),
)
_BODIES = st.binary(max_size=100) | st.just(b"") | st.just(b"x" * 70_000)


@given(st.data(), _NAMES, _BODIES, st.booleans())
def test_they_send_the_same(
    called: Both, data: st.DataObject, name: str, body: bytes, stream: bool
) -> None:
    members = _BOTH_HAVE if stream else (*_BOTH_HAVE, "TargetModel", "EnableExplanations")
    given_ = data.draw(st.dictionaries(st.sampled_from(members), _SOME))
    parameters = {"EndpointName": name, "Body": body, **given_}
    called.server.answer, called.server.then = (EMPTY if stream else GOOD), "keep"
    requests = called.sent(parameters, stream=stream)
    assert len(requests) in {0, 2}
    if requests:
        assert requests[0] == requests[1]
    else:
        lean, aio = (
            called.run(came_of(runtime, parameters, stream=stream))
            for runtime in (called.lean, called.aio)
        )
        assert lean == aio


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_SESSION_TOKEN": "to/ken+=="},
        {"AWS_SESSION_TOKEN": ""},
        {"AWS_MAX_ATTEMPTS": "7", "AWS_RETRY_MODE": "adaptive"},
        {"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE", "AWS_SDK_UA_APP_ID": "100%"},
        {"AWS_AUTH_SCHEME_PREFERENCE": "sigv4"},
    ],
)
@pytest.mark.parametrize("path", ["", "/", "/a/b", "/a//b/../c%20d~%7e/"])
def test_they_send_the_same_wherever_they_are(
    both: Both, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], path: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    both.start(path=path)
    for stream in (False, True):
        both.server.answer = EMPTY if stream else GOOD
        parameters = {"EndpointName": "e-1", "Body": b"{}", "ContentType": "a/b"}
        for _ in range(2):
            lean, aio = both.sent(parameters, stream=stream)
            assert lean == aio
    assert both.server.connections == 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"EndpointName": "e"},
        {"Body": b""},
        {"EndpointName": 1, "Body": b""},
        {"EndpointName": "e", "Body": None},
        {"EndpointName": "e", "Body": b"", "Accept": None},
        {"EndpointName": "e", "Body": b"", "Accept": b"a"},
        {"EndpointName": "e", "Body": b"", "InferenceId": ""},
        {"EndpointName": "e", "Body": b"", "Unknown": "a"},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_they_refuse_the_same(called: Both, parameters: dict[str, Any], stream: bool) -> None:
    called.server.requests.clear()
    lean, aio = (
        called.run(came_of(runtime, parameters, stream=stream))
        for runtime in (called.lean, called.aio)
    )
    assert lean == aio
    assert not called.server.requests


def answer(status: str, *headers: str, body: str = "") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}"))
    return f"{head}\r\n\r\n{body}".encode()


ANSWERS = [
    GOOD,
    answer(
        "200 OK",
        "Content-Type: a/b",
        "x-Amzn-Invoked-Production-Variant: v",
        "X-AMZN-SAGEMAKER-CUSTOM-ATTRIBUTES:  a  b \t",
        "X-Amzn-SageMaker-New-Session-Id: s; Expires=2030-01-01T00:00:00Z",
        "X-Amzn-SageMaker-Closed-Session-Id:",
        "Content-Type: c/d",
        body="x" * 1000,
    ),
    answer("204 Nothing"),
    answer("299"),
    b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n{}",
    CHUNKED + b"2\r\n{}\r\n1;a=b\r\nx\r\n0\r\nt: u\r\n\r\n",
    CHUNKED + b"20\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\na: \xff\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\na: \xc3\xa9\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + GOOD,
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100 + b"content-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\na" + b"b" * 100_000 + b": c\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"\r\n\r\n" + GOOD,
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x00\x00",
    b"",
    GOOD + b"HTTP/1.1 500 Not asked for\r\ncontent-length: 0\r\n\r\n",
    answer("307 Elsewhere", "location: /elsewhere"),
    answer("303 Elsewhere", "location: http://127.0.0.1:9/"),
    answer("301 Elsewhere", "location: /elsewhere"),
]
UNTIL_THE_END = [
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
]
ERRORS = [
    answer(status, *headers, body=body)
    for status in ("300 Many", "400 Bad", "424 Failed", "429 Slow", "500 Oh", "503 No", "999")
    for headers in (
        (),
        ("x-amzn-errortype: ModelError:http://x/", "x-amzn-RequestId: r-1"),
        ("x-amzn-errortype: ThrottlingException", "retry-after: 3"),
    )
    for body in (
        "",
        "{}",
        "<html>",
        "[]",
        "null",
        '{"__type": "a#ValidationError", "message": "session"}',
        '{"code": "ModelNotReadyException", "Message": "m"}',
        '{"OriginalStatusCode": 400, "OriginalMessage": "session not found", "Message": "l"}',
        '{"OriginalStatusCode": "x"}',
    )
]


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
def test_they_make_the_same_of_an_answer(called: Both, stream: bool, then: str) -> None:
    called.server.then = then
    for data in ANSWERS + (UNTIL_THE_END + ERRORS if then == "close" else []):
        called.server.answer = data
        called.server.requests.clear()
        lean, aio = called.came(stream=stream)
        assert lean == aio, data
        assert len(called.server.requests) == 2  # each but once, and no redirect is followed


@pytest.mark.parametrize("stream", [False, True])
def test_what_they_do_not_make_the_same_of(called: Both, stream: bool) -> None:
    """aiohttp gives up a head that comes with something wrong, and lets a reset end a body.

    The lean one knows more than that.
    """
    called.server.then = "close"
    called.server.answer = CHUNKED + b"2\r\n{}\r\nno chunk"
    (lean, _), (aio, _) = called.came(stream=stream)
    assert (lean.code, lean.outcome) == (ErrorCode.STREAM_BROKEN, Outcome.INVOKED)
    assert (aio.code, aio.outcome) == (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN)
    called.server.answer = (EMPTY if stream else GOOD) + b"nonsense"
    (lean, _), (aio, _) = called.came(stream=stream)
    assert lean == (StreamedReply() if stream else {"Body": b"{}"})
    assert (aio.code, aio.outcome) == (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN)
    called.server.then = "reset"
    for called.server.answer in UNTIL_THE_END:
        (lean, _), (aio, _) = called.came(stream=stream)
        assert (lean.code, lean.outcome) == (ErrorCode.STREAM_BROKEN, Outcome.INVOKED)
        assert stream or aio == {"Body": b"until the end"}


def part(payload: bytes, kind: str = "PayloadPart") -> bytes:
    """An event; the header values are strings, which are of type 7."""
    head = b"".join(
        struct.pack("!B", len(name)) + name + struct.pack("!BH", 7, len(value)) + value
        for name, value in ((b":message-type", b"event"), (b":event-type", kind.encode()))
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    event = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    return event + struct.pack("!I", crc32(event))


_LINES = st.lists(
    st.sampled_from(
        [
            b"content-type: a/b",
            b"x-amzn-errortype: ModelError",
            b"x-amzn-errortype: Novelty",
            b"Connection: close",
            b"connection: keep-alive",
            b"X-Amzn-SageMaker-Content-Type: text/plain",
            b"x-empty:",
        ]
    ),
    max_size=4,
)
_STATUS = st.sampled_from([b"200 OK", b"200", b"201 Made", b"400 Bad", b"424 Failed", b"500 Oh"])
_SLICES = st.lists(
    st.binary(min_size=1, max_size=9)
    | st.sampled_from([part(b"a"), part(b"b", "New"), part(b"c" * 300), b'{"Message": "session"}']),
    max_size=4,
)


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    """A well-formed answer, or its beginning."""
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]))
    slices = draw(_SLICES)
    if draw(st.booleans()):
        framing = b"transfer-encoding: chunked"
        body = b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in [*slices, b""])
    else:
        body = b"".join(slices)
        framing = b"content-length: %d" % len(body)
    lines = [version + b" " + draw(_STATUS), *draw(_LINES), framing]
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return whole[: draw(st.integers(0, len(whole)) | st.just(len(whole)))]


@given(_answers(), st.booleans())
def test_they_make_the_same_of_any_answer(called: Both, data: bytes, stream: bool) -> None:
    called.server.answer, called.server.then = data, "close"
    lean, aio = called.came(stream=stream)
    assert lean == aio
