"""All of the gateway but its sockets and its model, fed with bytes, in a time that goes by itself.

The model gives back what it is sent. The clock jumps to whatever is waited for, so that every
timeout of a connection comes and is over at once.
"""

import asyncio
import logging
import selectors
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Close

from gateway.app import application
from gateway.budget import ByteBudget
from gateway.config import Settings
from gateway.guard.model import GuardedModel
from gateway.guard.overload import Breaker
from gateway.route import Route
from gateway.security.door import Door
from gateway.security.keys import Keys, digest
from gateway.security.limits import LocalAccounts
from gateway.security.reloading import Reloader
from gateway.session.ports import (
    Call,
    ModelReply,
    ModelRequest,
    ModelSession,
    OnEnd,
    OnParts,
    Receipt,
)
from gateway.sessions import Sessions
from gateway.stores.memory import MemoryStore
from gateway.transports.http import HttpProtocol
from gateway.transports.protocol import WebSocketProtocol
from gateway.transports.sockets import HANDSHAKES
from gateway.turnstile import Turnstile
from tests.unit.test_protocol import Wire

KEY = "sgk_ada"
LAST_SECONDS = 200.0
"""By then a client that says nothing has been closed, and its session is over."""
MESSAGE_BYTES = 4096


class Skipping(selectors.DefaultSelector):
    """Waits for nothing, and says how long it would have."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """See `selectors.BaseSelector.select`."""
        found = super().select(0)
        if not found and timeout is not None:
            self.skipped += max(0.0, timeout)
        return found


class Hurried(asyncio.SelectorEventLoop):
    """A loop whose time is that which it would have waited."""

    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """See `asyncio.AbstractEventLoop.time`."""
        return self._skipping.skipped


class Echo:
    """A model that gives back what it is sent."""

    async def open(self, principal: str) -> ModelSession:  # noqa: ARG002
        """See `Model.open`."""
        return ModelSession("m")

    def invoke(
        self,
        request: ModelRequest,
        session: ModelSession | None,  # noqa: ARG002 - the port's
        *,
        affinity: str,  # noqa: ARG002
        principal: str,  # noqa: ARG002
        until: float | None,  # noqa: ARG002 - it is sent at once
        on_parts: OnParts,
        on_end: OnEnd,
    ) -> Call:
        """See `Model.invoke`."""

        def answer() -> None:
            if request.stream:
                on_parts([request.body])
                on_end(ModelReply(body=None, content_type=request.content_type))
            else:
                on_end(ModelReply(body=request.body, content_type=request.content_type))

        return asyncio.get_running_loop().call_soon(answer)

    def wait(self, receipt: Receipt, *, affinity: str, on_end: OnEnd) -> Call:
        raise NotImplementedError

    async def close(self, session: ModelSession) -> None:
        """See `Model.close`."""


class Line(Wire):
    """What a client gets."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """No certificate, and an address."""
        return None if name == "sslcontext" else super().get_extra_info(name, default)


class Answer(NamedTuple):
    """What a client has got.

    Attributes:
        status: Of each HTTP response.
        frames: The opcode and the payload of each frame.
        left: How many sessions, connections and tasks there are when all is over.
        logged: What was logged as an error.
    """

    status: list[int]
    frames: list[tuple[int, bytes]]
    left: tuple[int, int, int]
    logged: list[str]

    @property
    def code(self) -> int | None:
        """Of the close frame."""
        return Close.parse(self.frames[-1][1]).code if self.closed else None

    @property
    def closed(self) -> bool:
        """Whether there is one."""
        return bool(self.frames) and self.frames[-1][0] == 0x8

    def messages(self) -> list[dict[str, Any]]:
        """Those of the JSON subprotocol, or of MessagePack."""
        decode: dict[int, Callable[[bytes], Any]] = {
            1: msgspec.json.decode,
            2: msgspec.msgpack.decode,
        }
        return [decode[opcode](data) for opcode, data in self.frames if opcode in decode]


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        assert data[0] & 0xF0 == 0x80, "whole frames, without extensions"
        assert not data[1] & 0x80, "which a server does not mask"
        size, at = data[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        assert len(data) >= at + size, "the last is whole too"
        frames.append((data[0] & 0x0F, data[at : at + size]))
        data = data[at + size :]
    return frames


def _parsed(written: bytes) -> tuple[list[int], list[tuple[int, bytes]]]:
    status = []
    while written.startswith(b"HTTP/1.1 "):
        head, _, written = written.partition(b"\r\n\r\n")
        status.append(int(head[9:12]))
        if status[-1] == 101:
            break
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        written = written[int(length or 0) :]
    return status, _frames(written)


class _Kept(logging.Handler):
    """Keeps errors, and warnings of asyncio."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if record.levelno >= logging.ERROR or record.name == "asyncio":
            self.lines.append(record.getMessage())


def settings(folder: Path, *, auth: bool) -> Settings:
    """With two routes, and a key where one is needed."""
    keys = folder / "keys.toml"
    keys.write_text(f'[ada]\nsha256 = "{digest(KEY)}"\nmessages_per_second = 1000\n')
    route = {
        "endpoint_name": "e",
        "content_type": "text/plain",
        "message_bytes": MESSAGE_BYTES,
        "resume_seconds": 20,
        "stream": "raw",
    }
    given: dict[str, Any] = {"routes": {"chat": route, "games": route}}
    return Settings.model_validate(given | ({"auth": {"keys": {"file": keys}}} if auth else {}))


def answer(given: Settings, slices: Sequence[bytes]) -> Answer:
    """What a gateway makes of these bytes, which come one slice after the other."""
    kept = _Kept()
    logging.getLogger().addHandler(kept)
    try:
        with asyncio.Runner(loop_factory=Hurried) as runner:
            wire, left = runner.run(_answer(given, slices))
    finally:
        logging.getLogger().removeHandler(kept)
    status, frames = _parsed(b"".join(wire.written))
    return Answer(status, frames, left, kept.lines)


async def _answer(given: Settings, slices: Sequence[bytes]) -> tuple[Line, tuple[int, int, int]]:
    loop = asyncio.get_running_loop()
    store, budget = MemoryStore(), ByteBudget(10_000_000)
    limits, auth = given.limits, given.auth
    accounts = LocalAccounts(limits.of_principals, clock=loop.time)
    routes = {
        name: Route(
            route.policy(name, given.server),
            GuardedModel(Echo(), 4, Breaker(loop.time), shared=auth.required, patience=10.0),
        )
        for name, route in given.routes.items()
    }
    quota = accounts if auth.required else None
    sessions = Sessions(routes, max_sessions=10, budget=budget, quota=quota, drain_seconds=1)
    async with sessions:
        door = Door(
            keys=None if auth.keys is None else Keys(auth.keys.file, limits.of_principals),
            tokens=None,
            tickets=store,
            accounts=accounts,
            connections_per_address=10,
            handshakes_per_second=10,
            clock=loop.time,
        )
        make = partial(WebSocketProtocol, budget=budget, turnstile=Turnstile(HANDSHAKES))
        config = uvicorn.Config(
            application(given, sessions, door, store, Reloader())[0],
            ws=cast(Any, make),
            ws_max_size=MESSAGE_BYTES,
            ws_ping_interval=30,
            ws_per_message_deflate=False,
            server_header=False,
            date_header=False,
            log_config=None,
        )
        config.load()
        before = len(asyncio.all_tasks())
        wire, state = Line(), ServerState()
        wire.protocol = protocol = HttpProtocol(config, state, {})
        protocol.connection_made(wire)
        for data in slices:
            while not wire.reading and not wire.closing:  # noqa: ASYNC110 - but an attribute
                await asyncio.sleep(0.001)
            if wire.closing:
                break
            cast(asyncio.Protocol, wire.protocol).data_received(data)
            await asyncio.sleep(0)
        await asyncio.sleep(LAST_SECONDS)
        wire.closing = True
        cast(asyncio.Protocol, wire.protocol).connection_lost(None)
        await asyncio.sleep(LAST_SECONDS)
        there = len(asyncio.all_tasks()) - before
        return wire, (len(sessions), len(state.connections) + len(accounts), there)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Slices of it."""
    ends = [*sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
