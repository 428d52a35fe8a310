"""The gateway's whole message path in one process, with no socket: what valgrind counts.

`gateway.serving.serve` runs as it is, on uvloop, but its loop's connections lead nowhere: what it
writes to a client or to the platform is answered here, by bytes that were put together before.
So from one run to the next the same is done, and the count of instructions is that of the
gateway and the libraries it uses, without the kernel's.

Run as a module with a setting for ``aws.transport``, with ``-`` where there is no such setting or
with `OWN`, it does `PHASES` one after the other and calls getppid(2), which nothing else here does,
before each and after each.
"""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import msgspec
import uvicorn
import uvloop

from gateway.config import Settings
from gateway.process import Signals
from gateway.security import reloading
from gateway.security.keys import digest
from gateway.serving import serve
from gateway.telemetry import metrics
from gateway.transports import coalescing
from tests.bench.own import leave_the_platform_out
from tests.bench.processes import ENVIRONMENT
from tests.bench.upstream import CLOSED, OPENED, answer, json_text

OWN = "own"
"""In place of a transport: no platform, as in ``own.py``."""

LOGS = "logs"
"""Behind it: each turn is a line of the log."""

KEY = "sgk_bench"
"""What clients show."""

HTTP = "http"
"""In place of a subprotocol: each message is a request."""

WARM_UP = 60
PHASES = {
    "json": ("v1.json.session-gateway", "reply-1024", 200),
    "msgpack": ("v1.msgpack.session-gateway", "reply-1024", 200),
    "raw": (None, "reply-1024", 200),
    "stream": ("v1.json.session-gateway", "burst-200-40", 10),
    "http": (HTTP, "reply-1024", 200),
}
"""Subprotocol, endpoint and number of messages."""


def boundary() -> None:
    """Where one count ends and the next begins."""
    os.getppid()


class Wire(asyncio.Transport):
    """A transport whose other side is a function.

    Args:
        protocol: Of this side.
        takes: What is called with what this side writes.
    """

    def __init__(self, protocol: asyncio.BaseProtocol, takes: Callable[[bytes], None]) -> None:
        super().__init__()
        self._protocol = protocol
        self._takes = takes
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._quiet = socket.socketpair()  # to be asked whether there is anything to read

    def begin(self) -> None:
        """The connection is made."""
        self._protocol.connection_made(self)

    def give(self, data: bytes) -> None:
        """Let this side receive something, soon."""
        self._loop.call_soon(self._received, data)

    def _received(self, data: bytes) -> None:
        protocol: Any = self._protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(data)
            return
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    def write(self, data: Any) -> None:
        """To the other side."""
        self._takes(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """To the other side."""
        self._takes(b"".join(list_of_data))

    def close(self) -> None:
        """At once: there is never anything unsent."""
        if not self._closing:
            self._closing = True
            for end in self._quiet:
                end.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.BaseTransport`."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See `asyncio.BaseTransport`."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        if name == "socket":
            return self._quiet[0]
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""

    def is_reading(self) -> bool:
        """See `asyncio.ReadTransport`."""
        return True


class Platform:
    """Answers what comes over one connection. Every body ends as a JSON object does."""

    def __init__(self) -> None:
        self.wire: Wire | None = None

    def takes(self, data: bytes) -> None:
        """A request, or its beginning."""
        if self.wire is None or not data.endswith(b"}"):
            return
        if data.endswith(b'"NEW_SESSION"}'):
            self.wire.give(OPENED)
        elif data.endswith(b'"CLOSE"}'):
            self.wire.give(CLOSED)
        else:
            self.wire.give(self._answer)

    _answer = b""

    def endpoint(self, name: str) -> None:
        """Which endpoint is called from now on, over every connection."""
        Platform._answer = answer(name)


class Loop(uvloop.Loop):
    """uvloop, whose TCP connections are `Wire`."""

    accepted: Callable[[], asyncio.BaseProtocol] | None = None

    async def create_server(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        """Keep what makes a connection's protocol."""
        self.accepted = protocol_factory
        return _Server()

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """It needs no connection."""

    async def create_connection(self, protocol_factory: Any, *_: Any, **given: Any) -> Any:
        """To the platform."""
        if given.get("sock") is not None:
            given["sock"].close()
        platform, protocol = Platform(), protocol_factory()
        platform.wire = Wire(protocol, platform.takes)
        platform.wire.begin()
        return platform.wire, protocol


class _Server:
    sockets = ()

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


class Client:
    """One client of the gateway's, which sends a message when the last has been answered.

    Args:
        loop: That of the gateway.
        subprotocol: None for raw.
        endpoint: The route's name too.
    """

    def __init__(self, loop: Loop, subprotocol: str | None, endpoint: str) -> None:
        assert loop.accepted is not None
        self._text = subprotocol is None or "json" in subprotocol
        self._raw = subprotocol is None
        encode: Any = msgspec.json.encode if self._text else msgspec.msgpack.encode
        self._opening: bytes = encode({"type": "session.open"})
        body = json_text(1024)
        message = {"type": "message.send", "id": "m0000000", "text": body.decode()}
        whole: bytes = body if self._raw else encode(message)
        self._before, _, self._after = whole.partition(b"0000000")
        self._sent = self._left = 0
        self._upgraded = False
        self.answered = asyncio.Event()
        self._wire = Wire(loop.accepted(), self._takes)
        self._wire.begin()
        offered = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self._wire.give(
            f"GET /ws/{endpoint} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {KEY}\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{offered}\r\n".encode()
        )

    def _takes(self, data: bytes) -> None:
        if not self._upgraded:
            if not data.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(data)
            self._upgraded = True
            if self._raw:
                self.answered.set()
            else:
                self._give(self._opening)
        elif self._left and data[:1] != b"\x88":
            if (len(data) > 1024) if self._raw else (b"message.done" in data):
                self._left -= 1
                if self._left:
                    self._send()
                else:
                    self.answered.set()
        elif b"session.opened" in data:
            self.answered.set()
        elif data[:1] == b"\x88" and not self.answered.is_set():
            print(f"closed: {data!r}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)  # nothing that waits for an answer would get one

    def _give(self, payload: bytes) -> None:
        kind = b"\x81" if self._text else b"\x82"
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        # A mask of zeros leaves the payload as it is.
        self._wire.give(b"%b%b\0\0\0\0%b" % (kind, length, payload))

    def _send(self) -> None:
        self._sent += 1
        if self._raw:
            self._give(self._before)
        else:
            self._give(b"%b%07d%b" % (self._before, self._sent, self._after))

    async def send(self, count: int) -> None:
        """That many messages, one after the other."""
        self.answered.clear()
        self._left = count
        self._send()
        await self.answered.wait()


class HttpClient:
    """One client over HTTP, which sends a message when the last has been answered.

    Args:
        loop: That of the gateway.
        endpoint: The route's name too.
    """

    def __init__(self, loop: Loop, endpoint: str) -> None:
        assert loop.accepted is not None
        self._left = 0
        self._request = b""
        self.answered = asyncio.Event()
        self._wire = Wire(loop.accepted(), self._takes)
        self._wire.begin()
        self._wire.give(
            f"POST /v1/routes/{endpoint}/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    def _takes(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            if data[9:12] not in {b"200", b"201"}:
                print(f"refused: {data!r}", file=sys.stderr, flush=True)  # noqa: T201
                os._exit(1)  # see above
            data = data.partition(b"\r\n\r\n")[2]
        if not data:
            return
        if not self._request:
            opened = msgspec.json.decode(data)
            body = json_text(1024)
            self._request = (
                f"POST /v1/sessions/{opened['session_id']}/messages HTTP/1.1\r\n"
                f"Host: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
                f"Session-Key: {opened['resume_key']}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode() + body
            self.answered.set()
            return
        self._left -= 1
        if self._left:
            self._wire.give(self._request)
        else:
            self.answered.set()

    async def send(self, count: int) -> None:
        """That many messages, one after the other."""
        self.answered.clear()
        self._left = count
        self._wire.give(self._request)
        await self.answered.wait()


def settings(transport: str, keys: Path, *, logs: bool = False) -> Settings:
    """The gateway's, where everybody has to say who they are.

    Args:
        transport: See `main`.
        keys: The file of keys.
        logs: See `main`.
    """
    keys.write_text(f'[bench]\nsha256 = "{digest(KEY)}"\n')
    aws = {
        "region": "us-east-1",
        "endpoint_url": "http://127.0.0.1:9",
        "transport": "auto" if transport == OWN else transport,
    }
    routes = {
        endpoint: {
            "endpoint_name": endpoint,
            "content_type": "text/plain",
            "stream": "raw" if endpoint.startswith("burst") else "off",
        }
        for _, endpoint, _ in PHASES.values()
    }
    return Settings.model_validate(
        {
            # Under valgrind a clock runs many times too fast.
            "server": {
                "port": 0,
                "log_level": "INFO" if logs else "WARNING",
                "log_format": "json",
                "log_turns": logs,
                "open_timeout_seconds": 3600,
                "heartbeat_seconds": 3600,
            },
            "auth": {"keys": {"file": str(keys)}},
            "limits": {"messages_per_second": 86_400.0, "bytes_per_second": 1e9},
            "aws": aws,
            "routes": routes,
        }
    )


async def until_told(server: uvicorn.Server) -> None:
    """In place of uvicorn's own loop, which does something ten times a second."""
    while not server.should_exit:  # noqa: ASYNC110 - it is but an attribute
        await asyncio.sleep(5)


async def main(
    transport: str,
    *,
    phases: Iterable[str] = tuple(PHASES),
    between: Callable[[], None] = boundary,
    logs: bool = False,
) -> None:
    """Run the gateway, and all phases against it.

    Args:
        transport: The gateway's way to the platform, or `OWN`.
        phases: Some of `PHASES`.
        between: Called before each of them, and after each.
        logs: Whether each turn is a line of the log.
    """
    loop = cast(Loop, asyncio.get_running_loop())
    signals = Signals()
    ready = asyncio.Event()

    async def converse() -> None:
        await ready.wait()
        for phase in phases:
            subprotocol, endpoint, count = PHASES[phase]
            Platform().endpoint(endpoint)
            client = (
                HttpClient(loop, endpoint)
                if subprotocol == HTTP
                else Client(loop, subprotocol, endpoint)
            )
            await client.answered.wait()
            await client.send(WARM_UP if endpoint.startswith("reply") else 2)
            between()
            await client.send(count)
            between()
        signals.handle()

    # As the other times, see `settings`: what goes on by the clock would be counted more often on a
    # slower machine.
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(coalescing, "COALESCE_SECONDS", 3600),
        mock.patch.object(reloading, "LOOK_SECONDS", 3600),
        mock.patch.object(metrics, "LOOK_SECONDS", 3600),
        mock.patch.object(uvicorn.Server, "main_loop", until_told),
    ):
        async with asyncio.timeout(900), asyncio.TaskGroup() as tasks:
            tasks.create_task(converse())
            await serve(
                settings(transport, Path(folder, "keys.toml"), logs=logs),
                on_ready=lambda _url: ready.set(),
                signals=signals,
            )


if __name__ == "__main__":
    given, *more = sys.argv[1:]
    os.environ |= ENVIRONMENT
    if given == OWN:
        leave_the_platform_out()
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main(given, logs=more == [LOGS]))
