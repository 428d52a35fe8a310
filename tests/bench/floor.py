"""The floor: the least that a gateway can be, bare picows in front of a raw HTTP call.

It has no sessions, signs nothing, checks nothing and bounds nothing, so nothing that does these
things can be expected to cost less. A connection of a client's is one to the platform.

Run as a module with the platform's address, it prints its own and serves until it is killed.
"""

import asyncio
import re
import sys
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import picows
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Call(asyncio.Protocol):
    """Calls over one connection, one after the other.

    Args:
        head: Of every request, up to the number of its body's bytes.
    """

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._waiting: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from it

    def __call__(self, body: bytes) -> "asyncio.Future[bytes]":
        """The answer's body."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        return self._waiting

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        data = self._received + data if self._received else data
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, end)
        if end < 4 or length is None or len(data) < end + int(length[1]):
            self._received = data
            return
        self._received = b""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(data[end:])


async def connected(url: str, *headers: str, kind: type[Call] = Call) -> Call:
    """A connection to that endpoint.

    Args:
        url: With the path of an endpoint's ``invocations``.
        headers: Of each request.
        kind: What takes the answers.
    """
    parts = urlsplit(url)
    first = (
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
    )
    head = "\r\n".join((*first, *headers, "Content-Length: ")).encode()
    loop = asyncio.get_running_loop()
    assert parts.hostname is not None
    assert parts.port is not None
    _, call = await loop.create_connection(lambda: kind(head), parts.hostname, parts.port)
    return call


class Floor(picows.WSListener):
    """One client's connection, and with it one to the platform."""

    transport: picows.WSTransport

    def __init__(self, url: str) -> None:
        self._kinds: deque[picows.WSMsgType] = deque()
        self._call: Call | None = None
        self._connecting = asyncio.ensure_future(connected(url))
        self._waiting: deque[bytes] = deque()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """See `picows.WSListener`."""
        self.transport = transport
        self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: "asyncio.Future[Call]") -> None:
        self._call = connecting.result()
        if self._waiting:
            self._send(self._waiting.popleft())

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Pass a frame on; there is one at a time, as the bench's clients send them."""
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.disconnect()
            return
        self._kinds.append(frame.msg_type)
        body = frame.get_payload_as_bytes()
        if self._call is None:
            self._waiting.append(body)
        else:
            self._send(body)

    def _send(self, body: bytes) -> None:
        assert self._call is not None
        self._call(body).add_done_callback(self._answered)

    def _answered(self, answered: "asyncio.Future[bytes]") -> None:
        self.transport.send(self._kinds.popleft(), answered.result())


async def main(url: str) -> None:
    """Serve on any free port."""
    server = await picows.ws_create_server(
        lambda _request: Floor(url), "127.0.0.1", 0, backlog=4096
    )
    host, port = server.sockets[0].getsockname()
    print(f"listening on http://{host}:{port}", flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
