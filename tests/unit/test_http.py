"""HTTP connections: what is served, what is refused, and that none is felt by another."""

import asyncio
import functools
import gc
import socket
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from gateway.transports import http
from gateway.transports.calls import HttpCall
from gateway.transports.http import CHUNKED_BYTES, HEAD_BYTES, HEAD_LINES, HttpProtocol
from gateway.transports.requests import TRAILER_BYTES
from gateway.transports.sockets import KEEPALIVE_SECONDS
from tests.support.serving import HANDSHAKE, Loner, Turns, on_uvloop, serving
from tests.support.timing import UNIT

GET = b"GET /path%20x?q=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    body: bytes = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            return body
    raise ConnectionError


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"[%b]" % await read(receive))


async def path(scope: Any, _receive: Any, send: Any) -> None:
    await respond(send, scope["path"].encode())


@on_uvloop
async def test_a_silent_connection_is_kept_alive() -> None:
    kept: list[int] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        connection: Any
        (connection,) = served.server.server_state.connections
        sock = connection._transport.get_extra_info("socket")
        kept.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        kept.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        await echo(_scope, receive, send)

    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET)
        await peer.until(b"[]")
    assert kept == [1, KEEPALIVE_SECONDS]


@on_uvloop
async def test_requests_one_after_the_other_on_one_connection() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await path(scope, receive, send)

    async with serving(app, root_path="/root") as served, served.peer() as peer:
        for number in (1, 2):
            await peer.send(GET)
            await peer.until(b"/root/path x", number)
        await peer.send(b"\r\n" + GET.replace(b"GET", b"HEAD"))
        assert b"content-length: 12\r\n\r\n" in (await peer.until(b"HTTP/1.1 200 OK", 3))[-30:]
        await peer.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
        assert (await peer.closed()).count(b"HTTP/1.1 200 OK") == 4
    scope = scopes[0]
    assert scope["type"] == "http"
    assert scope["raw_path"] == b"/root/path%20x"
    assert scope["query_string"] == b"q=1"
    assert scope["headers"] == [(b"host", b"127.0.0.1")]
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


@on_uvloop
async def test_pipelined_requests_are_answered_in_their_order_and_one_at_a_time() -> None:
    running = most = 0

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        body = await read(receive)
        await asyncio.sleep(0)
        await respond(send, body)
        running -= 1

    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n<%d>"
    async with serving(app) as served, served.peer() as peer:
        await peer.send(b"".join(request % number for number in range(10)))
        got = await peer.until(b"<9>")
        assert [got.index(b"<%d>" % number) for number in range(10)] == sorted(
            got.index(b"<%d>" % number) for number in range(10)
        )
    assert most == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 408),
        (b"GET / HTTP/1.1\r\nHost:", 408),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * HEAD_LINES + b"\r\n", 431),
        (HANDSHAKE[:-2] + b"Cookie: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 12"), 400),
        (HANDSHAKE.replace(b"AAAA==", b"A=="), 400),
        (HANDSHAKE[:-2] + b"Content-Length: 5\r\n\r\nabcde", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"0" * 5000 + b"1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n", 400),
        (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"zz\r\n", 400),
        (CHUNKED + b"1;" + b"x" * (CHUNKED_BYTES + TRAILER_BYTES), 431),
        (CHUNKED + b"0\r\n" + b"a: b\r\n" * 1000, 431),
    ],
    ids=[
        "silence",
        "half-a-head",
        "tls",
        "nonsense",
        "no-host",
        "long-header",
        "many-headers",
        "long-cookies-in-a-handshake",
        "another-version",
        "a-short-key",
        "a-handshake-with-a-body",
        "two-hosts",
        "another-http",
        "two-lengths",
        "a-signed-length",
        "a-list-of-lengths",
        "a-long-length",
        "a-folded-header",
        "a-space-before-a-colon",
        "an-unknown-encoding",
        "chunks-of-an-older-client",
        "chunks-and-a-length",
        "a-malformed-chunk",
        "a-long-chunk-extension",
        "long-trailers",
    ],
)
@on_uvloop
async def test_what_is_no_request_is_answered_and_closed(
    sent: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05 * UNIT)
    async with serving(echo) as served, served.peer() as peer:
        await peer.send(sent)
        answer = await peer.closed()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        peer.end()
        await served.until_connections(0)


@pytest.mark.parametrize(
    "sent",
    [
        HANDSHAKE[:-2] + b'Sec-WebSocket-Protocol: "bearer.SECRET"\r\n\r\n',
        HANDSHAKE[:-2] + b"Sec-WebSocket-Protocol: v1, bearer.SECRET=\r\n\r\n",
        HANDSHAKE.replace(b"Version: 13", b"Version: SECRET"),
        HANDSHAKE.replace(b"AAAA==", b"SECRET"),
    ],
    ids=["quoted", "padded", "version", "key"],
)
@on_uvloop
async def test_what_a_handshake_shows_is_not_repeated(sent: bytes) -> None:
    async with serving(echo) as served, served.peer() as peer:
        await peer.send(sent)
        answer = await peer.closed()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\nNot a valid WebSocket handshake.\n")
    assert b"SECRET" not in answer


@pytest.mark.parametrize(
    "request_",
    [HANDSHAKE.replace(b"GET", b"POST"), HANDSHAKE.replace(b"Upgrade\r", b"close\r")],
    ids=["not-get", "no-upgrade"],
)
@on_uvloop
async def test_what_is_no_handshake_is_a_request(request_: bytes) -> None:
    async with serving(path) as served, served.peer() as peer:
        await peer.send(request_)
        await peer.until(b"\r\n\r\n/ws")


@on_uvloop
async def test_who_does_not_close_after_an_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.transports.sockets.CLOSE_SECONDS", 0.05 * UNIT)
    async with serving(path) as served, served.peer() as peer:
        await peer.send(b"nonsense\r\n\r\n")
        await peer.closed()
        await served.until_connections(0)


@on_uvloop
async def test_a_second_request_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05 * UNIT)
    async with serving(path, timeout_keep_alive=3600) as served, served.peer() as peer:
        await peer.send(GET + GET[:10])
        assert b"HTTP/1.1 408 " in await peer.closed()


@on_uvloop
async def test_a_connection_that_is_idle_is_closed() -> None:
    async with serving(path, timeout_keep_alive=0) as served, served.peer() as peer:
        await peer.send(GET)
        assert (await peer.closed()).endswith(b"path x")


@on_uvloop
async def test_a_line_end_after_a_body_does_not_keep_a_connection() -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    async with serving(echo, timeout_keep_alive=0) as served, served.peer() as peer:
        await peer.send(request + b"\r\n")
        assert (await peer.closed()).endswith(b"[abc]")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5", b"abcde"),
        (b"Transfer-Encoding: chunked", b"2;ext=1\r\nab\r\n3\r\ncde\r\n0\r\nA: b\r\n\r\n"),
    ],
    ids=["length", "chunked"],
)
@on_uvloop
async def test_a_body_however_it_is_cut(head: bytes, body: bytes) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (head, body)
    async with serving(echo) as served, served.peer() as peer:
        for number, cut in enumerate(range(1, len(request), 7), 1):
            await peer.send(request[:cut])
            await asyncio.sleep(0.001)
            await peer.send(request[cut:])
            await peer.until(b"[abcde]", number)


@on_uvloop
async def test_a_client_that_waits_to_be_asked_for_its_body() -> None:
    async with serving(echo) as served, served.peer() as peer:
        await peer.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        await peer.until(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.send(b"ab")
        await peer.until(b"[ab]")


@on_uvloop
async def test_a_body_that_pauses_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.transports.calls.BODY_SECONDS", 0.05 * UNIT)
    async with serving(echo) as served, served.peer() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        assert (await peer.closed()).startswith(b"HTTP/1.1 408 ")


@on_uvloop
async def test_an_answer_to_a_body_that_is_not_read_arrives() -> None:
    async with serving(path) as served, served.peer() as peer:
        size = 5_000_000
        await peer.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        await peer.send(b"x" * size)
        assert (await peer.closed()).endswith(b"/x")


@on_uvloop
async def test_what_is_unread_of_a_request_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", UNIT)
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: wrong.append(what))
    async with serving(path) as served, served.peer() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        assert b"200 OK" in await peer.closed()
        await asyncio.sleep(2 * UNIT)
    assert not wrong


@on_uvloop
async def test_a_body_waits_with_its_sender() -> None:
    go = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await respond(send, b"%d bytes" % len(await read(receive)))

    async with serving(app) as served, served.peer() as peer:
        size = 10_000_000
        await peer.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        body = b"x" * size
        tracemalloc.start()
        sending = asyncio.create_task(peer.send(body))
        await asyncio.sleep(0.1 * UNIT)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not sending.done()
        assert peak < 2_000_000
        go.set()
        await peer.until(b"10000000 bytes")
        await sending


@pytest.mark.parametrize("times", [100, 1], ids=["while it is made", "when it is"])
@on_uvloop
async def test_who_does_not_read_an_answer_is_cut(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response in one piece is in the transport's buffer, whatever the size of that."""
    monkeypatch.setattr(http, "WRITE_SECONDS", 0.05 * UNIT)
    monkeypatch.setattr("gateway.transports.sockets.CLOSE_SECONDS", 0.05 * UNIT)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        part = {"type": "http.response.body", "body": b"x" * (20_000_000 // times)}
        for number in range(times):
            await send({**part, "more_body": number < times - 1})

    async with serving(app, timeout_keep_alive=0) as served, served.peer() as peer:
        await peer.send(GET)
        await served.until_connections(1)
        await served.until_connections(0)


@on_uvloop
async def test_answers_that_nobody_reads_are_not_kept() -> None:
    calls = 0
    body = b"x" * 4000

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await respond(send, body)

    gc.collect()
    gc.disable()
    try:
        async with serving(app) as served, served.peer() as peer:
            tracemalloc.start()
            sending = asyncio.create_task(peer.send(GET * 200_000))
            last = -1
            while calls != last:
                last = calls
                await asyncio.sleep(0.1 * UNIT)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert 0 < calls < 20_000
            assert peak < len(GET) * 200_000 + 3_000_000
            left = [one for one in gc.get_objects() if type(one) is HttpCall]
            assert len(left) <= 1, "the others were freed without a collector"
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        gc.enable()


@on_uvloop
async def test_a_flood_of_chunks_leaves_others_their_turns() -> None:
    handed: Counter[int] = Counter()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            handed[turns.now] += len(message["body"])
            more = message["more_body"]
        await respond(send, b"all")

    async with serving(app) as served, served.peer() as peer:
        with Turns() as turns:
            await peer.send(CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
            await peer.until(b"all")
    assert sum(handed.values()) == 20_000
    assert max(handed.values()) <= CHUNKED_BYTES / 5


@on_uvloop
async def test_connections_are_counted_from_the_first_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(path, limit_concurrency=2) as served:
        async with served.peer(), served.peer() as second:
            await served.until_connections(2)
            async with served.peer() as third:
                answer = await third.closed()
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nRetry-After: " in answer
            async with served.peer() as third:
                await third.send(HANDSHAKE)
                assert (await third.closed()).startswith(b"HTTP/1.1 503 ")
            await served.until_connections(2)
            monkeypatch.setattr(http, "REFUSED_CONNECTIONS", 0)
            async with served.peer() as third:
                assert await third.cut() == b""
            await second.send(GET)
            await second.until(b"path x")
        await served.until_connections(0)
        async with served.peer() as peer:
            await peer.send(GET)
            await peer.until(b"path x")


async def path_or_socket(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await path(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


NO_REQUEST = b"\0"
NO_HANDSHAKE = HANDSHAKE.replace(b"Version: 13", b"Version: 8")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", b""),
        (GET, b"path x"),
        (HANDSHAKE, b"HTTP/1.1 101 "),
        (NO_REQUEST, b"HTTP/1.1 400 "),
        (NO_HANDSHAKE, b"HTTP/1.1 400 "),
    ],
    ids=["nothing", "request", "websocket", "no-request", "no-handshake"],
)
@on_uvloop
async def test_an_address_has_so_many_connections_until_they_are_gone(
    said: bytes, answer: bytes
) -> None:
    loner = Loner()
    http_protocol = functools.partial(HttpProtocol, peers=loner)
    async with serving(path_or_socket, http=http_protocol) as served:
        async with served.peer() as first:
            await first.send(said)
            await first.until(answer)
            async with served.peer() as second:
                assert await second.cut() == b""
            assert loner.there == 1
        await served.until_connections(0)
        assert loner.there == 0
        async with served.peer() as third:
            await third.send(GET)
            await third.until(b"path x")


@pytest.mark.parametrize("silent", [b"", b"GET / HTTP/1.1\r\n"], ids=["nothing", "half-a-head"])
@on_uvloop
async def test_silent_connections_keep_nobody_out(
    silent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05 * UNIT)
    monkeypatch.setattr("gateway.transports.sockets.CLOSE_SECONDS", 0.05 * UNIT)
    async with (
        serving(path, limit_concurrency=2) as served,
        served.peer() as first,
        served.peer() as second,
    ):
        await first.send(silent)
        await second.send(silent)
        await served.until_connections(2)
        await served.until_connections(0)
        async with served.peer() as peer:
            await peer.send(GET)
            await peer.until(b"path x")


async def fails(_scope: Any, _receive: Any, _send: Any) -> None:
    raise ValueError


async def does_nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    pass


@pytest.mark.parametrize("app", [fails, does_nothing])
@on_uvloop
async def test_an_application_without_an_answer(app: Any) -> None:
    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET + GET)
        await peer.until(b"HTTP/1.1 500 ", 2)


@on_uvloop
async def test_an_application_that_fails_in_the_middle() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET)
        assert (await peer.closed()).endswith(b"\r\n\r\nabc")


@on_uvloop
async def test_an_application_is_told_that_its_client_has_gone() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await read(receive)
        message = await receive()
        try:
            await send({"type": "http.response.body", "body": b"x"})
        except OSError:
            told.set_result(message["type"])
            raise

    async with serving(app) as served:
        async with served.peer() as peer:
            await peer.send(GET)
            await peer.until(b"chunked")
        async with asyncio.timeout(20 * UNIT):
            assert await told == "http.disconnect"


@on_uvloop
async def test_a_server_that_stops_answers_what_it_has_begun() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go.wait()
        await respond(send, b"done")
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async with serving(app) as served, served.peer() as busy, served.peer() as idle:
        await busy.send(GET)
        await begun.wait()
        await served.until_connections(2)
        served.server.should_exit = True
        assert await idle.closed() == b""
        go.set()
        assert (await busy.closed()).endswith(b"done")


def answers(*messages: dict[str, Any]) -> Any:
    """An application that says this."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await read(receive)
        for message in messages:
            await send(message)

    return app


def start(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def part(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@on_uvloop
async def test_a_response_whose_length_is_not_known_comes_in_chunks() -> None:
    app = answers(start(200), part(b"one", more=True), part(b"", more=True), part(b"two"))
    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET)
        answer = await peer.until(b"0\r\n\r\n")
        assert answer.endswith(b"chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        await peer.send(GET)  # over the same connection
        await peer.until(b"0\r\n\r\n", 2)


@on_uvloop
async def test_an_older_client_knows_no_chunks() -> None:
    app = answers(start(200), part(b"one", more=True), part(b"two"))
    async with serving(app) as served, served.peer() as peer:
        await peer.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = await peer.closed()
        assert answer == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo"


@pytest.mark.parametrize("status", [204, 304])
@on_uvloop
async def test_some_responses_have_no_body(status: int) -> None:
    async with serving(answers(start(status), part(b""))) as served, served.peer() as peer:
        await peer.send(GET)
        await peer.until(b"\r\n\r\n")
        await peer.send(GET)
        answer = await peer.until(b"\r\n\r\n", 2)
        assert answer.count(b"HTTP/1.1 %d " % status) == 2
        assert b"chunked" not in answer


@on_uvloop
async def test_a_client_that_asks_for_the_head_alone() -> None:
    app = answers(start(200), part(b"one"))
    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET.replace(b"GET", b"HEAD"))
        answer = await peer.until(b"\r\n\r\n")
        await peer.send(GET)
        assert (await peer.until(b"0\r\n\r\n")).startswith(answer)
        assert b"one" not in answer


@pytest.mark.parametrize("name", [b"a\r\nb", b"a\nb"])
@on_uvloop
async def test_a_header_is_one_line(name: bytes) -> None:
    app = answers(start(200, (b"x", name), (b"content-length", b"0")), part(b""))
    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET)
        answer = await peer.until(b"Internal Server Error\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"\nb" not in answer


@pytest.mark.parametrize("data", [b"more", b"l"])
@on_uvloop
async def test_a_response_that_is_not_as_long_as_it_says_is_the_last(data: bytes) -> None:
    parts = [part(data[:1], more=True), part(data[1:])]
    app = answers(start(200, (b"content-length", b"3")), *parts)
    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET + GET)
        answer = await peer.closed()
        assert answer.count(b"HTTP/1.1 200 ") == 1
        assert b"ore" not in answer


@on_uvloop
async def test_a_response_that_is_too_long_at_once_is_an_error() -> None:
    app = answers(start(200, (b"content-length", b"3")), part(b"more"))
    async with serving(app) as served, served.peer() as peer:
        await peer.send(GET)
        answer = await peer.until(b"Internal Server Error\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"more" not in answer


@pytest.mark.parametrize(
    "request_",
    [
        GET[:-2] + b"Connection: close\r\n\r\n",
        GET[:-2] + b"Connection: te, Close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        CHUNKED[:-2] + b"Connection: te, Close\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
    ids=["no-body", "a-list", "a-body", "chunks", "older"],
)
@on_uvloop
async def test_a_request_that_is_to_be_the_last_is(request_: bytes) -> None:
    async with serving(echo) as served, served.peer() as peer:
        await peer.send(request_ + GET)
        answer = await peer.closed()
        assert answer.count(b"HTTP/1.1 200 ") == 1
        assert b"connection: close\r\n" in answer


@on_uvloop
async def test_an_upgrade_to_what_is_not_spoken_is_passed_over() -> None:
    async with serving(echo) as served, served.peer() as peer:
        await peer.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"Content-Length: 5\r\n\r\nhello"
        )
        assert b"[hello]" in await peer.until(b"[hello]")
        await peer.send(GET)
        await peer.until(b"[]")
