"""A link over plain ASGI, with servers that fail as no real one can be made to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gateway.transports import asgi
from gateway.transports.asgi import ABNORMAL, DENIAL, NO_CODE, UNSENT_BYTES, AsgiLink, PlainAsgi
from gateway.transports.link import LINK
from tests.support.client import in_time

Message = dict[str, Any]


class Server:
    """An ASGI server whose client does as told, and an application that takes the frames."""

    def __init__(self) -> None:
        self.scope: Message = {"type": "websocket"}
        self.received: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.sent: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.fails: Exception | None = None
        self.frames: list[str | bytes] = []
        self.ends: list[int] = []
        self.writable = 0
        self.link: AsgiLink
        self.call: asyncio.Task[None]

    async def receive(self) -> Message:
        message = await self.received.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        if self.fails is not None:
            raise self.fails
        self.sent.append(message)

    def can_write(self) -> bool:
        return self.link.can_write

    def on_writable(self) -> None:
        self.writable += 1

    async def app(self, scope: Any, _receive: object, _send: object) -> None:
        self.link = scope["extensions"][LINK]
        self.link.take_frames(self.frames.append, self.on_writable, self.ends.append)

    def come(self, *frames: str | bytes) -> None:
        """Let the client send these."""
        for frame in frames:
            key = "text" if isinstance(frame, str) else "bytes"
            self.received.put_nowait({"type": "websocket.receive", key: frame})

    async def over(self) -> None:
        """Wait until the call has returned."""
        await in_time(self.call)
        await turns()


async def turns() -> None:
    """Let everything happen that waits for nothing else."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    server: Server, app: Callable[..., Awaitable[None]] | None = None
) -> AsyncIterator[Server]:
    """A connection that has begun."""
    plain = PlainAsgi(app or server.app)
    server.call = asyncio.create_task(plain(server.scope, server.receive, server.send))
    await turns()
    yield server
    server.call.cancel()
    with suppress(asyncio.CancelledError, ValueError):
        await server.call


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server()) as server:
        yield server


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a connection to go."""
    monkeypatch.setattr(asgi, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(asgi, "ANSWER_SECONDS", 0.01)


async def test_frames_go_both_ways(server: Server) -> None:
    server.come("a", b"b")
    await turns()
    assert server.frames == ["a", b"b"]
    server.link.write_frames(["c", b"d"], text=True)
    server.link.write_frames([b"e"], text=False)
    await turns()
    assert server.sent == [
        {"type": "websocket.send", "text": "c"},
        {"type": "websocket.send", "text": "d"},
        {"type": "websocket.send", "bytes": b"e"},
    ]
    assert server.ends == []


async def test_a_text_frame_whose_other_key_is_none(server: Server) -> None:
    server.received.put_nowait({"type": "websocket.receive", "text": None, "bytes": b"b"})
    server.received.put_nowait({"type": "websocket.receive", "text": "t", "bytes": None})
    await turns()
    assert server.frames == [b"b", "t"]


async def test_many_frames_at_once_leave_room_for_others(server: Server) -> None:
    server.come(*["x"] * 1000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(server.frames) < 1000


async def test_what_is_unsent_is_bounded(server: Server) -> None:
    server.reads.clear()
    server.link.write_frames([b"x" * (UNSENT_BYTES - 1)], text=False)
    await turns()
    assert server.can_write()
    server.link.write_frames([b"y"], text=False)
    assert not server.can_write()
    assert server.writable == 0
    server.reads.set()
    await turns()
    assert server.writable == 1
    assert server.can_write()
    assert [len(message["bytes"]) for message in server.sent] == [UNSENT_BYTES - 1, 1]


@pytest.mark.parametrize(("code", "told"), [(1000, 1000), (None, NO_CODE)])
async def test_a_client_that_goes(server: Server, code: int | None, told: int) -> None:
    server.received.put_nowait({"type": "websocket.disconnect", "code": code})
    await server.over()
    assert server.ends == [told]
    server.link.write_frames(["late"], text=True)
    server.link.close(1000, "")
    server.link.abandon(1000, "")
    await turns()
    assert server.sent == []
    assert server.ends == [told]


async def test_a_close_comes_after_what_was_written(server: Server) -> None:
    server.link.write_frames(["a", "b"], text=True)
    server.link.close(4404, "no such route")
    assert not server.can_write()
    server.link.close(1011, "too late")
    await turns()
    assert [message.get("text") for message in server.sent] == ["a", "b", None]
    assert server.sent[-1] == {"type": "websocket.close", "code": 4404, "reason": "no such route"}
    server.come("late")
    server.received.put_nowait({"type": "websocket.disconnect", "code": 4404})
    await server.over()
    assert server.ends == [4404]
    assert server.frames == []


@pytest.mark.usefixtures("at_once")
async def test_a_close_that_the_client_does_not_answer(server: Server) -> None:
    server.link.close(1000, "")
    await server.over()
    assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    assert server.ends == [1000]


async def test_what_is_unsent_is_left_out_where_a_connection_is_abandoned(server: Server) -> None:
    server.reads.clear()
    server.link.write_frames(["a", "b"], text=True)
    await turns()
    server.link.abandon(4413, "too slow")
    await turns()
    assert server.ends == [4413], "whether or not the client ever reads"
    assert server.sent == []
    server.reads.set()
    await turns()
    assert [message["type"] for message in server.sent] == ["websocket.send", "websocket.close"]


@pytest.mark.usefixtures("at_once")
async def test_a_client_that_never_reads_again_keeps_no_call(server: Server) -> None:
    server.reads.clear()
    server.link.write_frames(["a"], text=True)
    await turns()
    server.link.abandon(4413, "too slow")
    await server.over()
    assert server.sent == []
    assert server.ends == [4413]


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("the server's own")])
async def test_a_send_that_fails_leaves_the_code_to_receive(
    server: Server, error: Exception
) -> None:
    server.fails = error
    server.link.write_frames(["a", "b"], text=True)
    await turns()
    assert not server.can_write()
    assert server.ends == []
    server.received.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await server.over()
    assert server.ends == [1001]


@pytest.mark.usefixtures("at_once")
async def test_a_send_that_fails_ends_the_call_also_where_receive_says_nothing(
    server: Server,
) -> None:
    server.fails = OSError("gone")
    server.link.write_frames(["a"], text=True)
    await server.over()
    assert server.ends == [ABNORMAL]


async def test_a_close_that_can_not_be_sent(server: Server) -> None:
    server.fails = OSError("gone")
    server.link.close(1000, "")
    await server.over()
    assert server.ends == [1000]


async def test_a_receive_that_fails_is_the_servers_to_explain(server: Server) -> None:
    server.received.put_nowait(ValueError("what is this"))
    with pytest.raises(ValueError, match="what is this"):
        await server.over()
    await turns()
    assert server.ends == [ABNORMAL]


async def test_a_server_that_cancels_the_call(server: Server) -> None:
    server.reads.clear()
    server.link.write_frames(["a"], text=True)
    await turns()
    server.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.over()
    await turns()
    assert server.ends == [ABNORMAL]
    assert [task for task in asyncio.all_tasks() if "_write" in repr(task)] == []


async def test_a_connection_that_is_closed_while_nothing_is_received() -> None:
    server = Server()

    async def app(scope: Any, receive: Callable[[], Awaitable[Message]], _send: object) -> None:
        server.link = scope["extensions"][LINK]
        server.come("first")
        await receive()
        server.link.close(4400, "no session.open")
        server.link.take_frames(server.frames.append, server.on_writable, server.ends.append)

    async with serving(server, app):
        server.received.put_nowait({"type": "websocket.disconnect", "code": 4400})
        await server.over()
        assert [message["code"] for message in server.sent] == [4400]
        assert server.ends == [4400]


async def test_a_connection_that_is_closed_before_its_frames_are_taken() -> None:
    server = Server()

    async def app(scope: Any, receive: Callable[[], Awaitable[Message]], _send: object) -> None:
        server.link = scope["extensions"][LINK]
        server.come("first")
        assert (await receive())["text"] == "first"
        asyncio.get_running_loop().call_soon(server.link.close, 4400, "no session.open")
        assert await receive() == {"type": "websocket.disconnect", "code": 4400}
        assert await receive() == {"type": "websocket.disconnect", "code": 4400}
        server.link.take_frames(server.frames.append, server.on_writable, server.ends.append)

    async with serving(server, app):
        assert server.sent == [
            {"type": "websocket.close", "code": 4400, "reason": "no session.open"}
        ]
        assert server.ends == [4400]
        server.received.put_nowait({"type": "websocket.disconnect", "code": 4400})
        await server.over()
        assert server.ends == [4400]


async def test_a_call_that_takes_no_frames_ends_as_it_likes() -> None:
    server = Server()

    async def app(scope: Any, _receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
        server.link = scope["extensions"][LINK]
        await send({"type": "websocket.close"})

    async with serving(server, app):
        await server.over()
        assert server.sent == [{"type": "websocket.close"}]
        assert not server.can_write()


@pytest.mark.parametrize("offered", [True, False])
async def test_a_refusal_has_a_body_where_the_server_takes_one(offered: bool) -> None:
    server = Server()
    server.scope["extensions"] = {DENIAL: {}} if offered else None
    refusal = [
        {"type": f"{DENIAL}.start", "status": 403, "headers": []},
        {"type": f"{DENIAL}.body", "body": b"no"},
    ]

    async def app(scope: Any, _receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
        assert DENIAL in scope["extensions"]
        for message in refusal:
            await send(message)

    async with serving(server, app):
        await server.over()
        assert server.sent == (refusal if offered else [{"type": "websocket.close"}])


async def test_other_messages_pass_where_the_server_takes_no_refusal() -> None:
    server = Server()

    async def app(_scope: object, _receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "websocket.accept"})

    async with serving(server, app):
        await server.over()
        assert server.sent == [{"type": "websocket.accept"}]


@pytest.mark.parametrize(
    "scope", [{"type": "http"}, {"type": "websocket", "extensions": {LINK: "the server's own"}}]
)
async def test_what_needs_no_link_is_left_alone(scope: Message) -> None:
    server = Server()
    server.scope = scope
    seen: list[object] = []

    async def app(*call: object) -> None:
        seen.extend(call)

    async with serving(server, app):
        await server.over()
        assert seen == [scope, server.receive, server.send]
        assert seen[0] is scope
