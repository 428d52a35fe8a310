"""SageMaker Runtime with a model that counts: each turn that comes, and what becomes of sessions.

It shares no code with the gateway. The first part of the address that it is called at says who
calls, so that every process of a gateway has an address of its own. ``GET /state`` tells all.
"""

import asyncio
import json
import re
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import count
from typing import Any

import uvloop

from tests.chaos import texts
from tests.support.runtime import Runtime, serve

EXPIRES = "2099-01-01T00:00:00Z"

_SESSION = re.compile(rb"\r\nx-amzn-sagemaker-session-id: *(\S+)", re.IGNORECASE)
_CALL = re.compile(rb"POST /([^/ ]+)/endpoints/[^/ ]+/(invocations(?:-response-stream)?) ")
_HEAD = (
    "x-amzn-RequestId: 00000000-0000-4000-8000-000000000000",
    "x-Amzn-Invoked-Production-Variant: AllTraffic",
)


class Counts:
    """What has come, by the clock of all processes of this machine.

    Attributes:
        turns: When each text has come, in which session and from whom.
        sessions: When each was opened and by whom; when and by whom it was closed.
        strays: Turns that came for no session that is open.
    """

    def __init__(self) -> None:
        self.turns: dict[str, list[tuple[float, str, str]]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.strays: list[tuple[str, str, str]] = []
        self._numbers = count(1)

    def open(self, who: str) -> str:
        """A new session."""
        name = f"s{next(self._numbers)}"
        self.sessions[name] = {"opened": time.monotonic(), "by": who, "closed": []}
        return name

    def close(self, session: str, who: str) -> bool:
        """The end of one; whether it was open."""
        if session not in self.sessions:
            return False
        closed = self.sessions[session]["closed"]
        closed.append((time.monotonic(), who))
        return len(closed) == 1

    def take(self, text: str, session: str, who: str) -> bool:
        """A turn; whether its session is open."""
        self.turns.setdefault(text, []).append((time.monotonic(), session, who))
        known = self.sessions.get(session)
        if known is None or known["closed"]:
            self.strays.append((text, session, who))
            return False
        return True


def _response(status: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def _whole(body: bytes, *headers: str, status: str = "200 OK", kind: str = "text/plain") -> bytes:
    length = f"Content-Length: {len(body)}"
    return _response(status, *_HEAD, f"Content-Type: {kind}", length, *headers) + body


def _lost(status: str) -> bytes:
    body = {"Message": "", "OriginalMessage": "session not found", "OriginalStatusCode": 400}
    said = json.dumps(body).encode()
    return _whole(said, "x-amzn-ErrorType: ModelError", status=status, kind="application/json")


def _part(payload: bytes) -> bytes:
    """A chunk with one event of Amazon's event stream encoding."""
    named = (
        (b":event-type", b"PayloadPart"),
        (b":content-type", b"application/octet-stream"),
        (b":message-type", b"event"),
    )
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack("!H", len(value)) + value
        for name, value in named
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    checked = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    frame = checked + struct.pack("!I", zlib.crc32(checked))
    return b"%x\r\n%b\r\n" % (len(frame), frame)


_STREAM = _response(
    "200 OK",
    *_HEAD,
    "X-Amzn-SageMaker-Content-Type: text/plain",
    "Content-Type: application/vnd.amazon.eventstream",
    "Transfer-Encoding: chunked",
)


class Connection(Runtime):
    """One connection.

    Args:
        counts: Of all connections.
    """

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts
        self._loop = asyncio.get_running_loop()

    def answer(self, head: bytes, body: bytes) -> None:
        """See `Runtime.answer`."""
        if head.startswith(b"GET /state "):
            counts = self._counts
            told = {"turns": counts.turns, "sessions": counts.sessions, "strays": counts.strays}
            self.transport.write(_whole(json.dumps(told).encode(), kind="application/json"))
            return
        call, named = _CALL.match(head), _SESSION.search(head)
        assert call is not None, head
        who, session = call[1].decode(), named[1].decode() if named else ""
        if session == "NEW_SESSION":
            opened = f"{self._counts.open(who)}; Expires={EXPIRES}"
            self.transport.write(_whole(b"{}", f"X-Amzn-SageMaker-New-Session-Id: {opened}"))
        elif body.startswith(b"{"):
            self._counts.close(session, who)
            closed = f"X-Amzn-SageMaker-Closed-Session-Id: {session}"
            self.transport.write(_whole(b"{}", closed))
        elif not self._counts.take(body.decode(), session, who):
            self.transport.write(_lost("424 Failed Dependency"))
        else:
            self._reply(body.decode(), streams=call[2] != b"invocations")

    def _reply(self, text: str, *, streams: bool) -> None:
        parts, pause = texts.parts(text), texts.pause(text)
        if streams:
            self.transport.write(_STREAM)
            self._go_on(iter(parts), pause)
        else:
            body = _whole("".join(parts).encode())
            self._loop.call_later(pause * len(parts), self._write, body)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _go_on(self, parts: Iterator[str], pause: float) -> None:
        if self.transport.is_closing():
            return  # nobody hears it
        part = next(parts, None)
        if part is None:
            self.transport.write(b"0\r\n\r\n")
        else:
            self.transport.write(_part(part.encode()))
            self._loop.call_later(pause, self._go_on, parts, pause)


async def main() -> None:
    """Serve on any free port."""
    counts = Counts()
    await serve(lambda: Connection(counts))


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
