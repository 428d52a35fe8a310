"""The floor under every contender: SageMaker Runtime's answers, with next to no work done for them.

A plain asyncio protocol on uvloop. It looks at the path and the length of a request and at nothing
else, checks no signature, and writes bytes that were put together when it started, so that what
is measured is what stands in front of it. The endpoint's name says what is answered:
``reply-1024`` gives 1,024 bytes, ``chat-1024`` as many in the form of OpenAI's chat completions,
``burst-200-40`` a stream of 200 parts of 40 bytes at once.

Run as a module, it prints its address and serves until it is killed; with the path of a
certificate and its key it serves over TLS, as SageMaker does.
"""

import asyncio
import re
import ssl
import sys
from functools import cache
from typing import cast

import uvloop

from gateway.local.eventstream import CONTENT_TYPE, payload_part

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OPENS = re.compile(rb'\{"requestType": ?"NEW_SESSION"\}')
_CLOSES = re.compile(rb'\{"requestType": ?"CLOSE"\}')
_SESSION = "0123456789abcdef0123456789abcdef"
_EXPIRES = "2099-01-01T00:00:00Z"


def _filled(start: bytes, end: bytes, size: int) -> bytes:
    words = b"The quick brown fox jumps over the lazy dog. "
    filling = size - len(start) - len(end)
    return start + (words * (filling // len(words) + 1))[:filling] + end


def json_text(size: int) -> bytes:
    """A JSON object of that many bytes, as models answer with."""
    return _filled(b'{"generated_text":"', b'"}', size)


def chat_request(size: int) -> bytes:
    """A request of that many bytes, as OpenAI's chat completions have it."""
    return _filled(b'{"model":"model","messages":[{"role":"user","content":"', b'"}]}', size)


def chat_reply(size: int) -> bytes:
    """The answer to it."""
    return _filled(
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"model","choices":'
        b'[{"index":0,"message":{"role":"assistant","content":"',
        b'"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":200,"completion_tokens":150,"total_tokens":350}}',
        size,
    )


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def _whole(body: bytes, *headers: str) -> bytes:
    return (
        _head(
            "200 OK",
            "x-amzn-RequestId: 00000000-0000-4000-8000-000000000000",
            "x-Amzn-Invoked-Production-Variant: AllTraffic",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *headers,
        )
        + body
    )


OPENED = _whole(b"{}", f"X-Amzn-SageMaker-New-Session-Id: {_SESSION}; Expires={_EXPIRES}")
CLOSED = _whole(b"{}", f"X-Amzn-SageMaker-Closed-Session-Id: {_SESSION}")


@cache
def answer(endpoint: str) -> bytes:
    """The bytes of an endpoint's every answer."""
    kind, *numbers = endpoint.split("-")
    if kind == "burst":
        parts, size = map(int, numbers)
        frame = payload_part(b"word " * (size // 5))
        # A chunk each, as a server that flushes what a model writes sends them.
        chunks = b"%x\r\n%b\r\n" % (len(frame), frame) * parts
        return (
            _head(
                "200 OK",
                "x-amzn-RequestId: 00000000-0000-4000-8000-000000000000",
                "x-Amzn-Invoked-Production-Variant: AllTraffic",
                "X-Amzn-SageMaker-Content-Type: text/plain",
                f"Content-Type: {CONTENT_TYPE}",
                "Transfer-Encoding: chunked",
            )
            + chunks
            + b"0\r\n\r\n"
        )
    return _whole((chat_reply if kind == "chat" else json_text)(int(numbers[0])))


class Runtime(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0  # bytes of the body that are still to come
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from it

    def data_received(self, data: bytes) -> None:
        """One request at a time; what of it is body is counted and thrown away."""
        if not self._left:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            length = _LENGTH.search(data, 0, end)
            self._left = int(length[1]) if length else 0
            body = data[end + 4 :]
            if self._left < 64 and len(body) < self._left:
                self._head, self._left = data, 0  # one to look into: let it be whole first
                return
            self._head = b""
            if _OPENS.match(body):
                self._answer = OPENED
            elif _CLOSES.match(body):
                self._answer = CLOSED
            else:
                # POST /endpoints/NAME/invocations
                self._answer = answer(data[16 : data.index(b"/", 16)].decode())
            data = body
        self._left -= len(data)
        if self._left <= 0 and self._transport is not None:
            self._left = 0
            self._transport.write(self._answer)


async def main(certificate: str | None = None) -> None:
    """Serve on any free port.

    Args:
        certificate: For ``localhost``, with its key; None to serve without TLS.
    """
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Runtime, "127.0.0.1", 0, backlog=4096, ssl=tls)
    host, port = server.sockets[0].getsockname()
    url = f"http://{host}:{port}" if tls is None else f"https://localhost:{port}"
    print(f"listening on {url}", flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
