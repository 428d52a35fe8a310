"""SageMaker Runtime in as few instructions as in the bench, for models that are hostile too.

The endpoint's name says what is answered: ``reply-N``, a reply of N bytes; ``lines-N``, a stream of
N bytes of ``{}`` lines; ``crumbs-N``, a stream of N parts of one byte; ``json-N``, N bytes of empty
lists; ``silent``, nothing. Run as a module with such names, it makes their answers first of all.
"""

import asyncio
import re
import sys
from functools import cache
from typing import cast

import uvloop

from gateway.local.eventstream import CONTENT_TYPE, payload_part
from tests.bench.upstream import CLOSED, OPENED, answer

PART_BYTES = 65_536

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ENDPOINT = re.compile(rb"POST /endpoints/([^/]+)/")


def _response(content_type: str, body: bytes, *headers: str) -> bytes:
    lines = (
        "HTTP/1.1 200 OK",
        "x-amzn-RequestId: 00000000-0000-4000-8000-000000000000",
        "x-Amzn-Invoked-Production-Variant: AllTraffic",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


@cache
def answer_of(endpoint: str) -> bytes:
    """The bytes of an endpoint's every answer."""
    kind, _, number = endpoint.partition("-")
    if kind == "silent":
        return b""
    if kind == "reply":
        return answer(endpoint)
    size = int(number)
    if kind == "json":
        return _response("application/json", b"[" + b",".join([b"[]"] * (size // 3)) + b"]")
    whole = b"{}\n" * (size // 3) if kind == "lines" else b"x" * size
    step = PART_BYTES if kind == "lines" else 1
    parts = (whole[at : at + step] for at in range(0, len(whole), step))
    body = b"".join(map(payload_part, parts))
    return _response(CONTENT_TYPE, body, "X-Amzn-SageMaker-Content-Type: application/jsonlines")


class Runtime(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from it

    def data_received(self, data: bytes) -> None:
        """Answer a request when it is whole; there is one at a time."""
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = _LENGTH.search(received, 0, end)
        if len(received) < end + int(length[1] if length else 0):
            return
        body = received[end : end + 40]
        endpoint = _ENDPOINT.match(received)
        if b"NEW_SESSION" in body:
            self._transport.write(OPENED)
        elif b'"CLOSE"' in body:
            self._transport.write(CLOSED)
        elif endpoint is not None:
            self._transport.write(answer_of(endpoint[1].decode()))
        received.clear()


async def main(*endpoints: str) -> None:
    """Serve on any free port."""
    for endpoint in endpoints:
        answer_of(endpoint)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Runtime, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"listening on http://{host}:{port}", flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
