"""Streaming calls against servers that write the event stream by hand.

The frames are those of ``application/vnd.amazon.eventstream``: lengths, a checksum of them,
headers, a payload, and a checksum of it all.
"""

import asyncio
import contextlib
import json
from binascii import crc32
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import pack
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Outcome
from gateway.formats.presets import FORMATS, Format
from gateway.formats.streams import StreamKind
from gateway.formats.text import Text
from gateway.protocol.options import CallOptions
from gateway.sagemaker import budget
from gateway.sagemaker.model import LINES_A_MINUTE, SageMakerModel
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.transport import Transport
from gateway.session.ports import ModelError, ModelReply, ModelRequest, ModelSession
from tests.support import transports
from tests.support.calls import invoke
from tests.support.listener import listening
from tests.support.timing import UNIT

ASK = ModelRequest(body=b'{"inputs": "hi"}', content_type="application/json", stream=True)
SESSION = ModelSession("s-1")


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """An event; the header values are strings, which are of type 7."""
    head = b"".join(
        pack("!B", len(name)) + name.encode() + pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = pack("!II", 16 + len(head) + len(payload), len(head))
    event = prelude + pack("!I", crc32(prelude)) + head + payload
    return event + pack("!I", crc32(event))


def part(payload: bytes) -> bytes:
    headers = {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    return frame(headers, payload)


def fault(kind: str, **members: str) -> bytes:
    headers = {
        ":message-type": "exception",
        ":exception-type": kind,
        ":content-type": "application/json",
    }
    return frame(headers, json.dumps(members).encode())


class Connection:
    """A request that has come, and the writing of its answer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str, body: bytes
    ) -> None:
        self.head = head.lower()
        self.path = head.split(" ", 2)[1]
        self.body = body
        self._reader = reader
        self._writer = writer

    async def start(self, *headers: str) -> None:
        """A 200 whose body comes in chunks."""
        lines = (
            "HTTP/1.1 200 OK",
            "content-type: application/vnd.amazon.eventstream",
            "transfer-encoding: chunked",
            *headers,
        )
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """A chunk; one without data is the last."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def whole(self, *frames: bytes) -> None:
        await self.start()
        for data in frames:
            await self.send(data)
        await self.send(b"")

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(ConnectionError):
            assert await self._reader.read() == b""

    def abort(self) -> None:
        self._writer.transport.abort()


Handler = Callable[[Connection], Awaitable[None]]


class Server:
    """Hands each request to the handler."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self.connections = 0
        self.requests: list[Connection] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
            request = Connection(reader, writer, head, await reader.readexactly(length))
            self.requests.append(request)
            await self._handle(request)


@asynccontextmanager
async def serving(handle: Handler, **options: Any) -> AsyncIterator[tuple[Server, Transport]]:
    server = Server(handle)
    async with (
        listening(server.serve) as port,
        transports.client(f"http://127.0.0.1:{port}", **options) as client,
    ):
        yield server, client


def model_of(
    client: Transport, form: Format = FORMATS["lmi"], profile: str = "stateless", **defaults: Any
) -> SageMakerModel:
    return SageMakerModel(
        client, "my-endpoint", PROFILES[profile], CallOptions(**defaults), body_format=form
    )


class Talk:
    """One turn, with the parts that came of it."""

    def __init__(self, model: SageMakerModel) -> None:
        self._model = model
        self.parts: list[str | bytes] = []
        self.came = asyncio.Event()

    def _take(self, parts: list[str | bytes]) -> None:
        self.parts += parts
        self.came.set()

    async def ask(
        self, request: ModelRequest = ASK, session: ModelSession | None = None
    ) -> ModelReply:
        return await invoke(self._model, request, session, self._take)


def token(text: str) -> bytes:
    return json.dumps({"token": {"text": text}}).encode() + b"\n"


HELLO = [part(token("Hel")), part(token("lo")[:7]), part(token("lo")[7:])]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 64, 10_000])
async def test_a_reply_in_parts(step: int) -> None:
    frames = b"".join(HELLO)

    async def handle(request: Connection) -> None:
        assert request.path == "/endpoints/my-endpoint/invocations-response-stream"
        assert request.body == ASK.body
        assert "x-amzn-sagemaker-session-id: s-1\r\n" in request.head
        await request.start(
            "X-Amzn-SageMaker-Content-Type: application/jsonlines",
            "x-Amzn-Invoked-Production-Variant: blue",
            "X-Amzn-SageMaker-Custom-Attributes: a=b",
        )
        for at in range(0, len(frames), step):
            await request.send(frames[at : at + step])
        await request.send(b"")

    async with serving(handle) as (server, client):
        talk = Talk(model_of(client, profile="container-standards"))
        for _ in range(2):
            assert await talk.ask(session=SESSION) == ModelReply(
                body=None,
                content_type="text/plain; charset=utf-8",
                variant="blue",
                custom_attributes="a=b",
            )
        assert talk.parts == ["Hel", "lo"] * 2
        # A stream that was read to its end leaves its connection to the next call.
        assert server.connections == 1


async def test_parts_come_as_they_are_made() -> None:
    goes_on = asyncio.Event()

    async def handle(request: Connection) -> None:
        await request.start()
        await request.send(HELLO[0])
        await goes_on.wait()
        await request.send(HELLO[1] + HELLO[2])
        await request.send(b"")

    async with serving(handle) as (_, client):
        talk = Talk(model_of(client))
        call = asyncio.create_task(talk.ask())
        async with asyncio.timeout(20 * UNIT):
            await talk.came.wait()
        assert talk.parts == ["Hel"]
        goes_on.set()
        await call
        assert talk.parts == ["Hel", "lo"]


@pytest.mark.parametrize(
    ("content_type", "parts"),
    [("text/plain; charset=utf-8", ["caf", "é"]), ("audio/mpeg", [b"caf\xc3", b"\xa9"])],
)
async def test_a_raw_stream(content_type: str, parts: list[str | bytes]) -> None:
    async def handle(request: Connection) -> None:
        await request.start(f"X-Amzn-SageMaker-Content-Type: {content_type}")
        await request.send(part(b"caf\xc3"))
        await request.send(
            part(b"") + frame({":event-type": "New", ":message-type": "event"}, b"x")
        )
        await request.send(part(b"\xa9"))
        await request.send(b"")

    async with serving(handle) as (_, client):
        talk = Talk(model_of(client, FORMATS["plain"]))
        reply = await talk.ask()
        assert (reply.body, reply.content_type) == (None, content_type)
        assert talk.parts == parts


FAULTS = [
    (fault("ModelStreamError", ErrorCode="ModelInvocationTimeExceeded"), ErrorCode.TIMEOUT),
    (fault("ModelStreamError", ErrorCode="StreamBroken"), ErrorCode.STREAM_BROKEN),
    (fault("ModelStreamError", Message="without a code"), ErrorCode.STREAM_BROKEN),
    (fault("InternalStreamFailure", Message="secret"), ErrorCode.STREAM_BROKEN),
    (fault("SomethingNew", Message="secret"), ErrorCode.STREAM_BROKEN),
    (
        frame({":message-type": "exception", ":exception-type": "ModelStreamError"}, b"nonsense"),
        ErrorCode.STREAM_BROKEN,
    ),
    (
        frame({":message-type": "error", ":error-code": "X", ":error-message": "secret"}, b""),
        ErrorCode.STREAM_BROKEN,
    ),
    (HELLO[1][:-1] + b"\x00", ErrorCode.STREAM_BROKEN),
    (b"\x00" * 40, ErrorCode.STREAM_BROKEN),
    (b"<html>not an event stream</html>", ErrorCode.STREAM_BROKEN),
    (HELLO[1][:3], ErrorCode.STREAM_BROKEN),
    (HELLO[1][:-1], ErrorCode.STREAM_BROKEN),
]


@pytest.mark.parametrize(("data", "code"), FAULTS)
@pytest.mark.parametrize("apart", [True, False])
async def test_faults_in_mid_stream(data: bytes, code: ErrorCode, apart: bool) -> None:
    async def handle(request: Connection) -> None:
        await request.whole(*((HELLO[0], data) if apart else (HELLO[0] + data,)))

    async with serving(handle) as (server, client):
        talk = Talk(model_of(client))
        with pytest.raises(ModelError) as caught:
            await talk.ask()
        failure = caught.value.failure
        assert (failure.code, failure.outcome) == (code, Outcome.INVOKED)
        assert "secret" not in repr(failure)
        assert failure.facts.keys() & {"cause", "raised", "code"}, "the operator is told"
        assert talk.parts == ["Hel"]
        assert len(server.requests) == 1


async def cut_between_events(request: Connection) -> None:
    await request.start()
    await request.send(HELLO[0])
    request.abort()


async def cut_in_mid_frame(request: Connection) -> None:
    await request.start()
    await request.send(HELLO[0] + HELLO[1][:9])
    request.abort()


async def cut_in_mid_chunk(request: Connection) -> None:
    await request.start()
    await request.send(HELLO[0])
    await request.raw(b"40\r\nabc")
    request.abort()


async def falls_silent(request: Connection) -> None:
    await request.start()
    await request.send(HELLO[0] + HELLO[1])
    await request.gone()


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        (cut_between_events, ErrorCode.STREAM_BROKEN),
        (cut_in_mid_frame, ErrorCode.STREAM_BROKEN),
        (cut_in_mid_chunk, ErrorCode.STREAM_BROKEN),
        (falls_silent, ErrorCode.TIMEOUT),
    ],
)
async def test_connections_in_mid_stream(handle: Handler, code: ErrorCode) -> None:
    patience = (0.3 if code is ErrorCode.TIMEOUT else 20) * UNIT
    async with serving(handle, read_timeout=patience) as (server, client):
        with pytest.raises(ModelError) as caught:
            await Talk(model_of(client)).ask()
        failure = caught.value.failure
        assert (failure.code, failure.outcome) == (code, Outcome.INVOKED)
        assert not failure.may_retry
        assert len(server.requests) == 1


async def test_a_stream_that_is_not_in_chunks() -> None:
    """aiohttp waits for the rest of it until it has been silent for too long."""
    goes_on = asyncio.Event()

    async def handle(request: Connection) -> None:
        await request.start()
        await request.send(HELLO[0])
        await goes_on.wait()  # with the head, it would be no response at all
        await request.raw(b"nonsense\r\n")
        await request.gone()

    async with serving(handle, read_timeout=0.3 * UNIT) as (_, client):
        talk = Talk(model_of(client))
        call = asyncio.create_task(talk.ask())
        async with asyncio.timeout(20 * UNIT):
            await talk.came.wait()
            goes_on.set()
            with pytest.raises(ModelError) as caught:
                await call
        failure = caught.value.failure
        lean = transports.chosen == "lean"
        assert failure.code is (ErrorCode.STREAM_BROKEN if lean else ErrorCode.TIMEOUT)
        assert failure.outcome is Outcome.INVOKED


@pytest.mark.parametrize(
    ("status", "body", "code", "outcome"),
    [
        (
            "424 Failed Dependency",
            {"OriginalStatusCode": 400, "OriginalMessage": "session not found"},
            ErrorCode.SESSION_LOST,
            Outcome.NOT_INVOKED,
        ),
        (
            "424 Failed Dependency",
            {"OriginalStatusCode": 500, "OriginalMessage": "secret"},
            ErrorCode.MODEL_ERROR,
            Outcome.INVOKED,
        ),
    ],
)
async def test_errors_before_the_stream(
    status: str, body: dict[str, object], code: ErrorCode, outcome: Outcome
) -> None:
    async def handle(request: Connection) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nx-amzn-errortype: ModelError\r\ncontent-length: {len(data)}"
        await request.raw(head.encode() + b"\r\n\r\n" + data)

    async with serving(handle) as (_, client):
        with pytest.raises(ModelError) as caught:
            await Talk(model_of(client, profile="container-standards")).ask(session=SESSION)
        assert (caught.value.failure.code, caught.value.failure.outcome) == (code, outcome)


@pytest.mark.parametrize("started", [False, True])
async def test_a_cancelled_call_closes_its_connection_at_once(started: bool) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async def handle(request: Connection) -> None:
        if started:
            await request.start()
            await request.send(HELLO[0])
        reached.set()
        await request.gone()
        gone.set()

    async with serving(handle, read_timeout=60 * UNIT) as (_, client):
        talk = Talk(model_of(client))
        call = asyncio.create_task(talk.ask())
        async with asyncio.timeout(20 * UNIT):
            await reached.wait()
            if started:
                await talk.came.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await gone.wait()


async def test_a_failed_stream_closes_its_connection_at_once() -> None:
    gone = asyncio.Event()

    async def handle(request: Connection) -> None:
        await request.start()
        await request.send(HELLO[0] + part(b'{"code": 424, "error": "secret"}\n'))
        await request.gone()
        gone.set()

    async with serving(handle, read_timeout=60 * UNIT) as (_, client):
        talk = Talk(model_of(client))
        with pytest.raises(ModelError) as caught:
            await talk.ask()
        failure = caught.value.failure
        assert (failure.code, failure.outcome) == (ErrorCode.MODEL_ERROR, Outcome.INVOKED)
        assert talk.parts == ["Hel"]
        async with asyncio.timeout(20 * UNIT):
            await gone.wait()


async def test_a_line_that_is_too_long() -> None:
    async def handle(request: Connection) -> None:
        await request.whole(*HELLO, part(b"x" * 50), part(b"x" * 50))

    async with serving(handle) as (_, client):
        model = SageMakerModel(
            client,
            "my-endpoint",
            PROFILES["stateless"],
            CallOptions(),
            body_format=FORMATS["lmi"],
            line_bytes=80,
        )
        with pytest.raises(ModelError) as caught:
            await Talk(model).ask()
        failure = caught.value.failure
        assert (failure.code, failure.outcome) == (ErrorCode.TOO_LARGE, Outcome.INVOKED)
        assert "80" in failure.message


def answering(body: bytes, content_type: str = "application/json") -> Handler:
    async def handle(request: Connection) -> None:
        assert request.path == "/endpoints/my-endpoint/invocations"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}"
        await request.raw(
            head.encode() + b"\r\nX-Amzn-SageMaker-New-Session-Id: s-1\r\n\r\n" + body
        )

    return handle


WHOLE = b'[{"generated_text": "Gr\\u00fc\\u00df dich"}]'


@pytest.mark.parametrize(
    ("form", "profile", "request_", "defaults"),
    [
        (FORMATS["lmi"], "stateless", {"stream": False}, {}),
        (FORMATS["lmi"], "first-message", {}, {}),
        (FORMATS["lmi"], "stateless", {"target_model": "a"}, {}),
        (FORMATS["lmi"], "stateless", {}, {"enable_explanations": "`true`"}),
        (Format(text=FORMATS["lmi"].text), "stateless", {}, {}),
    ],
)
async def test_what_does_not_stream_comes_as_text_in_one_piece(
    form: Format, profile: str, request_: dict[str, Any], defaults: dict[str, str]
) -> None:
    async with serving(answering(WHOLE)) as (_, client):
        talk = Talk(model_of(client, form, profile, **defaults))
        reply = await talk.ask(
            ModelRequest(**{"body": b"{}", "content_type": "a/b", "stream": True, **request_})
        )
        assert reply.body == "Grüß dich".encode()
        assert reply.content_type == "text/plain; charset=utf-8"
        assert reply.new_session == SESSION
        assert talk.parts == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"generated_text": 1}', b"1\n2"])
@pytest.mark.parametrize("form", [FORMATS["lmi"], FORMATS["tgi"], FORMATS["plain"], Format()])
async def test_a_reply_without_text_is_passed_on_as_it_is(form: Format, body: bytes) -> None:
    async with serving(answering(body, "text/html")) as (_, client):
        for stream in (False, True):
            request = ModelRequest(body=b"{}", content_type="a/b", stream=stream)
            reply = await Talk(model_of(client, form, "first-message")).ask(request)
            assert (reply.body, reply.content_type) == (body, "text/html")


async def test_a_stream_in_one_piece() -> None:
    """What a model answers that was asked for a stream, by a call that can't be one."""
    body = token("Hel") + token("lo")
    async with serving(answering(body)) as (_, client):
        model = model_of(client, profile="first-message")
        assert (await Talk(model).ask()).body == b"Hello"
        plain = ModelRequest(body=b"{}", content_type="a/b")
        assert (await Talk(model).ask(plain)).body == body
    async with serving(answering(body + b'{"code": 424, "error": "secret"}')) as (_, client):
        with pytest.raises(ModelError) as caught:
            await Talk(model_of(client, profile="first-message")).ask()
        assert caught.value.failure.code is ErrorCode.MODEL_ERROR


RECORDS = structs.replace(ASK, verbatim=True)


@pytest.mark.parametrize("form", ["lmi", "openai-chat"])
async def test_records_come_as_the_model_gives_them(form: str) -> None:
    """Each a part, also where the route takes the text from them, and one has none."""
    records = ['{"choices": [{"delta": {"role": "assistant"}}]}', '{"usage": {"a": 1}}']
    lines = "".join(f"data: {record}\n\n" for record in records).encode()

    async def handle(request: Connection) -> None:
        kind = "X-Amzn-SageMaker-Content-Type: text/event-stream"
        await request.start(kind)
        for at in range(0, len(lines), 7):
            await request.send(part(lines[at : at + 7]))
        await request.send(part(b"data: [DONE]\n\n"))
        await request.send(b"")

    async with serving(handle) as (_, client):
        talk = Talk(model_of(client, FORMATS[form]))
        reply = await talk.ask(RECORDS)
        assert talk.parts == records
        assert (reply.body, reply.content_type) == (None, "text/event-stream")


@pytest.mark.parametrize("profile", ["stateless", "first-message"])
async def test_records_in_one_piece(profile: str) -> None:
    """A reply is as it came; the events of a stream, all at once, are parts."""
    whole = b'{"choices": [{"message": {"content": "Hello"}}]}'
    asked = structs.replace(RECORDS, stream=profile == "first-message")
    async with serving(answering(whole)) as (_, client):
        talk = Talk(model_of(client, FORMATS["openai-chat"], profile))
        reply = await talk.ask(asked)
        assert (reply.body, reply.content_type) == (whole, "application/json")
        assert talk.parts == []
    if not asked.stream:
        return
    events = b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
    async with serving(answering(events, "text/event-stream")) as (_, client):
        talk = Talk(model_of(client, FORMATS["openai-chat"], profile))
        reply = await talk.ask(asked)
        assert talk.parts == ['{"a": 1}', '{"b": 2}']
        assert (reply.body, reply.content_type) == (None, "text/event-stream")
        assert reply.new_session == SESSION
    async with serving(answering(events + b'data: {"error": {"message": "x"}}')) as (_, client):
        with pytest.raises(ModelError) as caught:
            await Talk(model_of(client, FORMATS["openai-chat"], profile)).ask(asked)
        assert caught.value.failure.code is ErrorCode.MODEL_ERROR
    async with serving(answering(b"\n", "text/plain")) as (_, client):
        talk = Talk(model_of(client, FORMATS["openai-chat"], profile))
        assert (await talk.ask(asked)).body == b"\n"


async def test_a_stream_in_one_piece_is_read_in_many_turns_of_the_loop() -> None:
    lines = 20_000
    async with serving(answering(token("x") * lines)) as (_, client):
        talk = Talk(model_of(client, profile="first-message"))
        call = asyncio.create_task(talk.ask())
        turns = 0
        reading = client.budget
        while not call.done():
            await asyncio.sleep(0)
            turns += reading.waiting
        assert (await call).body == b"x" * lines
        assert turns >= lines / budget.TURN_COST - 1


async def test_cancelling_what_is_read_in_one_piece() -> None:
    async with serving(answering(token("x") * 20_000)) as (_, client):
        model = model_of(client, profile="first-message")
        ends: list[object] = []
        call = model.invoke(
            ASK,
            None,
            affinity="a",
            principal="p",
            until=None,
            on_parts=ends.append,
            on_end=ends.append,
        )
        await until(lambda: client.budget.waiting)
        call.cancel()
        await until(lambda: not client.budget.waiting)
        assert ends == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20 * UNIT):
        while not condition():  # noqa: ASYNC110 - each turn of the loop counts
            await asyncio.sleep(0)


async def test_a_malformed_session_id_is_told_of_but_not_too_often() -> None:
    async def handle(request: Connection) -> None:
        head = "HTTP/1.1 200 OK\r\nX-Amzn-SageMaker-New-Session-Id: -secret-\r\n"
        await request.raw(f"{head}content-length: 2\r\n\r\n{{}}".encode())

    async with serving(handle) as (_, client):
        model = SageMakerModel(
            client, "my-endpoint", PROFILES["first-message"], CallOptions(), route="chat"
        )
        with capture_logs() as logs:
            for _ in range(LINES_A_MINUTE + 1):
                assert (await invoke(model, ASK)).new_session is None
        assert (
            logs
            == [
                {
                    "event": "malformed NewSessionId",
                    "log_level": "warning",
                    "route": "chat",
                    "session": "a",
                    "endpoint": "my-endpoint",
                    "length": 8,
                    "suppressed": 0,
                }
            ]
            * LINES_A_MINUTE
        )
        opening = model_of(client, profile="container-standards")
        with pytest.raises(ModelError) as caught:
            await opening.open("p")
        assert caught.value.failure.facts["symptom"] == "session_malformed"


async def test_a_body_that_is_not_one_object_is_not_sent() -> None:
    async with serving(answering(b"{}")) as (server, client):
        model = model_of(client, FORMATS["plain"], "torchserve")
        for body in (b'{"session_id": "mine"} {}', b"{} x"):
            request = ModelRequest(body=body, content_type="application/json")
            with pytest.raises(ModelError) as caught:
                await invoke(model, request, SESSION)
            failure = caught.value.failure
            assert (failure.code, failure.outcome) == (
                ErrorCode.VALIDATION_ERROR,
                Outcome.NOT_INVOKED,
            )
        assert server.requests == []


async def test_what_a_format_accepts() -> None:
    async def handle(request: Connection) -> None:
        await request.whole(part(b'{"accept": "%b"}\n' % accept_of(request)))

    def accept_of(request: Connection) -> bytes:
        return request.head.partition("x-amzn-sagemaker-accept: ")[2].split("\r\n")[0].encode()

    form = Format(stream=StreamKind.LINES, text="accept", accept="a/format")
    async with serving(handle) as (_, client):
        for model, default in (
            (model_of(client, form), "a/format"),
            (model_of(client, form, accept="a/route"), "a/route"),
        ):
            talk = Talk(model)
            await talk.ask()
            await talk.ask(
                ModelRequest(body=b"{}", content_type="a/b", stream=True, accept="a/message")
            )
            assert talk.parts == [default, "a/message"]


async def test_a_hostile_stream_is_read_in_many_turns_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In between, everything else goes on."""
    turn, read = 0, Counter[int]()
    of = Text.of

    def counted(text: Text, value: object) -> str | None:
        read[turn] += 1
        return of(text, value)

    async def handle(request: Connection) -> None:
        await request.whole(part(b"{}\n" * 20_000), part(token("done")))

    monkeypatch.setattr(Text, "of", counted)
    async with serving(handle) as (_, client):
        talk = Talk(model_of(client))
        call = asyncio.create_task(talk.ask())
        while not call.done():
            await asyncio.sleep(0)
            turn += 1
        assert talk.parts == ["done"]
        assert sum(read.values()) == 20_001
        assert max(read.values()) <= budget.TURN_COST


@pytest.mark.parametrize("transport", ["lean"], indirect=True)
async def test_a_stream_that_is_read_slowly_is_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server waits for the gateway, and for longer than it may be silent itself.

    aiohttp counts that time as the server's.
    """
    line = token("x" * 1_000)
    count = 700  # more than is read before the connection is paused

    async def handle(request: Connection) -> None:
        await request.whole(*[part(line * 10)] * (count // 10))

    async with serving(handle, read_timeout=0.5 * UNIT) as (_, client):
        clock = Slow(0.25 * UNIT)
        monkeypatch.setattr(client.budget, "_loop", clock)
        talk = Talk(model_of(client))
        await talk.ask()
        assert "".join(map(str, talk.parts)) == "x" * 1_000 * count
        assert clock.turns > 10


class Slow:
    """An event loop whose turns are long."""

    def __init__(self, seconds: float) -> None:
        self.turns = 0
        self._seconds = seconds

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.turns += 1
        asyncio.get_running_loop().call_later(self._seconds, callback)
