"""Parses the heads of requests, and determines how their bodies end.

httptools parses heads, in a tenth of h11's time. Bodies with a length need no parser; chunked ones
are left to h11, with their heads.
"""

import re
from typing import NamedTuple, Protocol

import h11
import httptools

TRAILER_BYTES = 1024
"""Maximum size of a chunk's extension, and of the trailers."""

MAX_DIGITS = 15
"""Maximum digits of a body's length."""

_CHUNKED = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)


class BadRequest(Exception):
    """The request is not valid.

    Attributes:
        status: Status of the response.
    """

    def __init__(self, status: int = 400) -> None:
        super().__init__(status)
        self.status = status


class Body(Protocol):
    """A request's body.

    Attributes:
        ended: Whether the body is complete.
        chunked: Whether it is chunked; each chunk takes time to parse.
    """

    ended: bool
    chunked: bool

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Split data into the part that belongs to the body, and what follows it.

        Raises:
            BadRequest: It is malformed.
        """
        ...


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        method: The method, unchanged.
        target: The request target.
        version: "1.0" or "1.1".
        headers: Names, in lower case, and values.
        keep_alive: Whether another request may follow.
        waits: Whether the client waits for ``100 Continue`` before it sends the body.
        body: The body.
    """

    method: bytes
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    waits: bool
    body: Body

    def __repr__(self) -> str:
        return f"<Head of {len(self.headers)}>"


class _Sized:
    """A body whose length is in its head."""

    __slots__ = ("_left", "ended")

    chunked = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = not length

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        left = self._left
        self._left = max(0, left - len(data))
        self.ended = not self._left
        return data[:left], data[left:]


class _Chunked:
    """A chunked body, after a head that h11 has parsed."""

    chunked = True
    ended = False

    def __init__(self, conn: h11.Connection) -> None:
        self._conn = conn

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        body = bytearray()
        try:
            self._conn.receive_data(data)
            while isinstance(event := self._conn.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint) from None
        self.ended = isinstance(event, h11.EndOfMessage)
        return bytes(body), self._conn.trailing_data[0] if self.ended else b""


class _Parsed:
    """The results of httptools' callbacks."""

    __slots__ = ("headers", "is_whole", "keep_alive", "parser", "target")

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.keep_alive = False
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_whole = True
        self.keep_alive = self.parser.should_keep_alive()  # forgotten when the request ends


def head_of(data: bytes) -> Head:
    """Parse a request's head.

    Raises:
        BadRequest: The head is not valid.
    """
    if _CHUNKED.search(data):
        return _chunked(data)
    parsed = _Parsed()
    parser = parsed.parser
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # to a protocol that this server doesn't support
    except httptools.HttpParserError:
        raise BadRequest from None
    finally:
        del parsed.parser  # breaks a reference cycle
    version, headers = parser.get_http_version(), parsed.headers
    named = dict(headers)
    length = named.get(b"content-length", b"0")
    waits = version == "1.1" and named.get(b"expect", b"").lower() == b"100-continue"
    if (
        not parsed.is_whole
        or version not in {"1.0", "1.1"}
        or (version == "1.1" and b"host" not in named)
        or not (length.isdigit() and len(length) <= MAX_DIGITS)
        or (len(named) < len(headers) and _repeats(headers))
    ):
        raise BadRequest
    keep_alive = version == "1.1" and parsed.keep_alive
    body = _Sized(int(length))
    return Head(parser.get_method(), parsed.target, version, headers, keep_alive, waits, body)


def _repeats(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a header that must be unique is repeated."""
    names = [name for name, _ in headers]
    return names.count(b"host") > 1 or names.count(b"content-length") > 1


def _chunked(data: bytes) -> Head:
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=TRAILER_BYTES)
    try:
        conn.receive_data(data)
        request = conn.next_event()
    except h11.RemoteProtocolError as error:
        raise BadRequest(error.error_status_hint) from None
    if not isinstance(request, h11.Request):
        raise BadRequest
    headers = list(request.headers)
    # Others may read such a body up to its length, or as no body at all: RFC 9112, section 6.3.
    if request.http_version != b"1.1" or any(name == b"content-length" for name, _ in headers):
        raise BadRequest
    connection = b",".join(value for name, value in headers if name == b"connection").lower()
    return Head(
        request.method,
        request.target,
        "1.1",
        headers,
        b"close" not in map(bytes.strip, connection.split(b",")),
        conn.they_are_waiting_for_100_continue,
        _Chunked(conn),
    )
