"""The ASGI side of connections: the application's call for an HTTP request or a WebSocket.

A WebSocket's call handles its handshake, and its frames unless the application takes its `Link`.
"""

import asyncio
from collections.abc import Callable, Collection, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog
import uvicorn
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF
from websockets.server import ServerProtocol

from gateway.errors import CloseCode
from gateway.transports.checker import forget, websockets_log
from gateway.transports.leaving import ON_LEAVING
from gateway.transports.link import LINK
from gateway.transports.requests import Head

if TYPE_CHECKING:
    from gateway.transports.http import HttpProtocol
    from gateway.transports.protocol import WebSocketProtocol

Message = MutableMapping[str, Any]

MAX_LINE_BYTES = 8192
"""Maximum length of a header line in websockets."""

log = structlog.stdlib.get_logger("gateway.connections")

BODY_SECONDS = 30.0
"""Maximum pause within the body of an HTTP request."""

BODY_BYTES = 65_536
"""Maximum size of the buffer for a request's body."""

_OF_REFUSALS = frozenset({"Allow", "Upgrade"})
"""Headers that say what would be accepted instead (RFC 9110, 15.5.6 and 15.5.22)."""

_BODILESS = frozenset({204, 304})
"""Statuses of responses that have no body (RFC 9110, 6.4.1)."""

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class ClientDisconnected(OSError):
    """The application wrote to a closed connection; ASGI asks for an `OSError`."""


def connection_scope(transport: asyncio.Transport, config: uvicorn.Config) -> dict[str, Any]:
    """Return the part of an ASGI scope that describes the connection."""
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return {
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "client": tuple(peer[:2]) if isinstance(peer, tuple | list) else None,
        "server": tuple(own[:2]) if isinstance(own, tuple | list) else None,
        "root_path": config.root_path,
    }


def target_scope(target: bytes, root_path: str) -> dict[str, Any]:
    """Return the part of an ASGI scope that describes the request's target."""
    raw_path, _, query_string = target.partition(b"?")
    return {
        "path": root_path + unquote(raw_path.decode("ascii")),
        "raw_path": root_path.encode("ascii") + raw_path,
        "query_string": query_string,
    }


def plain_response(status: int, text: str, *headers: tuple[str, str]) -> bytes:
    """Encode an HTTP response that closes the connection."""
    body = text.encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class WebSocketCall:
    """A WebSocket, and the application's call for it.

    Args:
        protocol: Protocol of the connection.
        config: uvicorn's configuration.
        scope: The connection's part of the ASGI scope.
    """

    def __init__(
        self, protocol: "WebSocketProtocol", config: uvicorn.Config, scope: dict[str, Any]
    ) -> None:
        self._protocol = protocol
        self._app = config.loaded_app
        self._scope = scope
        self._conn = ServerProtocol(logger=websockets_log)
        self._response: Response | None = None
        self._denial: tuple[int, Headers, bytearray] | None = None
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._writable = asyncio.Event()
        self.disconnected = False

    def _begin(self, head: bytes) -> bool:
        """Handle a request; return False if it is no handshake and was refused."""
        if self.disconnected:
            return False
        self._conn.receive_data(head)
        request = next(iter(self._conn.events_received()), None)
        if not isinstance(request, Request):
            answer = self._to_send()
            if not answer and max(map(len, head.split(b"\n"))) > MAX_LINE_BYTES:
                answer = plain_response(431, "A header is too long.\n")
            self._refuse(answer or plain_response(400, "Not a valid HTTP request.\n"))
            return False
        response = self._conn.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            # websockets' own text quotes headers, which may contain a token.
            also = [pair for pair in response.headers.raw_items() if pair[0] in _OF_REFUSALS]
            text = "Not a valid WebSocket handshake.\n"
            self._refuse(plain_response(response.status_code, text, *also))
            return False
        del response.headers["Date"]
        self._response = response
        self._scope |= {
            "type": "websocket",
            "http_version": "1.1",
            "headers": [
                (name.lower().encode("ascii"), _encoded(value))
                for name, value in request.headers.raw_items()
            ],
            "subprotocols": [
                token.strip()
                for value in request.headers.get_all("Sec-WebSocket-Protocol")
                for token in value.split(",")
            ],
            "extensions": {"websocket.http.response": {}, LINK: self._protocol},
            **target_scope(request.path.encode("ascii"), self._scope["root_path"]),
        }
        self._received.put_nowait({"type": "websocket.connect"})
        return True

    def _to_send(self) -> bytes:
        return b"".join(data for data in self._conn.data_to_send() if data != SEND_EOF)

    def _refuse(self, answer: bytes) -> None:
        self._response = None
        forget(self._conn)
        self._protocol.refuse(answer)

    def refuse(self, status: HTTPStatus, text: str) -> None:
        """Refuse the handshake, unless it has been answered."""
        if self._response is not None:
            self._conn.send_response(self._conn.reject(status, text))
            self._refuse(self._to_send())

    async def run(self, head: bytes) -> None:
        """Handle a request, call the application, and close unless it has taken the frames.

        Args:
            head: The request's head.
        """
        code = CloseCode.INTERNAL
        try:
            if self._begin(head):
                await self._app(self._scope, self._receive, self._send)
            code = CloseCode.NORMAL
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("a connection failed")
        finally:
            self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error\n")
            self._protocol.end_call(code)

    def deliver(self, message: Message) -> None:
        """Queue a message for the application."""
        self._received.put_nowait(message)

    def take(self) -> list[Message]:
        """Remove and return the messages that the application hasn't received."""
        messages = []
        while not self._received.empty():
            messages.append(self._received.get_nowait())
        return messages

    def end(self, code: int, reason: str) -> None:
        """Tell the application that the connection is closed."""
        self._response = None
        self.disconnected = True
        self._writable.set()
        self.deliver({"type": "websocket.disconnect", "code": code, "reason": reason})

    def resume_writing(self) -> None:
        """Resume sending: the transport's buffer has room."""
        self._writable.set()

    async def _receive(self) -> Message:
        message = await self._received.get()
        if self._received.empty():
            self._protocol.read_on()
        return message

    async def _send(self, message: Message) -> None:
        if self._response is not None:
            self._answer(self._response, message)
            return
        while not self._protocol.can_write and not self.disconnected:
            self._writable.clear()
            await self._writable.wait()
        if self.disconnected:
            raise ClientDisconnected
        match message:
            case {"type": "websocket.send", "bytes": bytes(data)}:
                self._protocol.write_frames([data], text=False)
            case {"type": "websocket.send", "text": str(text)}:
                self._protocol.write_frames([text], text=True)
            case {"type": "websocket.close"}:
                self._protocol.close(message.get("code", 1000), message.get("reason") or "")
            case _:
                raise RuntimeError(f"unexpected ASGI message {message['type']!r}")

    def _answer(self, response: Response, message: Message) -> None:
        """Accept or refuse the handshake."""
        match message["type"]:
            case "websocket.accept" if self._denial is None:
                for name, value in message.get("headers", ()):
                    response.headers[name.decode("latin-1")] = value.decode("latin-1")
                if message.get("subprotocol"):
                    response.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
                self._conn.send_response(response)
                self._response = None
                answer = self._to_send()
                forget(self._conn)
                self._protocol.accept(answer)
            case "websocket.close" if self._denial is None:
                self.refuse(HTTPStatus.FORBIDDEN, "")
            case "websocket.http.response.start" if self._denial is None:
                pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
                self._denial = message["status"], Headers(pairs), bytearray()
            case "websocket.http.response.body" if self._denial is not None:
                status, headers, body = self._denial
                body += message.get("body", b"")
                if not message.get("more_body"):
                    headers.setdefault("Content-Length", str(len(body)))
                    headers.setdefault("Connection", "close")
                    denial = Response(status, HTTPStatus(status).phrase, headers, bytes(body))
                    self._conn.send_response(denial)
                    self._refuse(self._to_send())
            case other:
                raise RuntimeError(f"unexpected ASGI message {other!r} during a handshake")


def _encoded(value: str) -> bytes:
    """Encode a header's value as received: websockets before version 17 decoded it as ASCII."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("ascii", errors="surrogateescape")


class HttpCall:
    """A request, and the application's call for it.

    Args:
        protocol: Protocol of the connection.
        transport: Transport of the connection.
        head: The request's head.
        scope: The complete ASGI scope.

    Attributes:
        keep_alive: Whether another request may follow this one.
        started: Whether the response has begun.
        complete: Whether the response is complete.
    """

    __slots__ = (
        "_body",
        "_body_received",
        "_changed",
        "_disconnected",
        "_left",
        "_on_leaving",
        "_protocol",
        "_request",
        "_scope",
        "_transport",
        "_unsent",
        "_waits",
        "_writes_chunks",
        "complete",
        "keep_alive",
        "started",
    )

    def __init__(
        self,
        protocol: "HttpProtocol",
        transport: asyncio.Transport,
        head: Head,
        scope: dict[str, Any],
    ) -> None:
        self.keep_alive = head.keep_alive
        scope["extensions"] = {ON_LEAVING: self.call_on_leaving}
        self._protocol = protocol
        self._transport = transport
        self._request = head.body
        self._waits = head.waits
        self._scope = scope
        self._changed: asyncio.Event | None = None
        self._on_leaving: Callable[[], object] | None = None
        self._body = bytearray()
        self._body_received = self._disconnected = False
        self._writes_chunks = False
        self._unsent = b""
        self._left: int | None = None  # bytes of the response's body; None if its length is unknown
        self.started = self.complete = False

    @property
    def chunked(self) -> bool:
        """Whether the request's body is chunked."""
        return self._request.chunked

    @property
    def body_ended(self) -> bool:
        """Whether the request's body is complete."""
        return self._request.ended

    @property
    def takes_body(self) -> bool:
        """Whether more of the request's body is expected, and fits into the buffer."""
        return not self._request.ended and len(self._body) < BODY_BYTES

    def take_body(self, data: bytes) -> bytes:
        """Read more of the body; return the data after it.

        Raises:
            BadRequest: It is malformed.
        """
        if self._request.ended:
            return data
        body, rest = self._request.take(data)
        self._body += body
        self._waits = False
        self._change()
        return rest

    def call_on_leaving(self, call: Callable[[], object] | None) -> None:
        """See `gateway.transports.leaving`."""
        self._on_leaving = call
        if call is not None and self._disconnected:
            call()

    def disconnect(self) -> None:
        """Detach the request from the connection."""
        self._disconnected = True
        self._change()
        if self._on_leaving is not None:
            self._on_leaving()

    async def run(self, app: Any) -> None:
        """Call the application."""
        try:
            await app(self._scope, self._receive, self._send)
            if not self.started:
                await self._fail()
        except Exception:
            if self._disconnected:
                return
            log.exception("a request failed")
            if not self.started:
                await self._fail()
        finally:
            del self._scope["extensions"]  # breaks a reference cycle
            self._protocol.end_call(self)

    async def _fail(self) -> None:
        self._unsent, text = b"", b"Internal Server Error\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        await self._send({"type": "http.response.start", "status": 500, "headers": headers})
        await self._send({"type": "http.response.body", "body": text})

    async def _receive(self) -> Message:
        if self._waits and not self.started:
            self._waits = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self._disconnected or self._is_due):
            await self._wait()
        if self._disconnected or self._body_received:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        ended = self._body_received = self._request.ended
        if not ended:
            self._protocol.read_on()
        return {"type": "http.request", "body": body, "more_body": not ended}

    async def _wait(self) -> None:
        self._changed = self._changed or asyncio.Event()
        try:
            async with asyncio.timeout(None if self._body_received else BODY_SECONDS):
                while not (self._disconnected or self._is_due):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._protocol.refuse(408, answered=self.started)

    def _change(self) -> None:
        if self._changed is not None:
            self._changed.set()

    @property
    def _is_due(self) -> bool:
        """Whether `_receive` has something to return."""
        if self._body_received:
            return self.complete
        return bool(self._body) or self._request.ended

    async def _send(self, message: Message) -> None:
        if not self._protocol.writable.is_set():
            await self._protocol.writable.wait()
        if self._disconnected:
            raise ClientDisconnected
        match message["type"]:
            case "http.response.start" if not (self._unsent or self.started):
                head = self._head(message["status"], message.get("headers", ()))
                if self._left:
                    self._unsent = head  # sent together with the body, in one system call
                else:
                    self.started = True
                    self._transport.write(head)
            case "http.response.body" if (self._unsent or self.started) and not self.complete:
                data, more = message.get("body", b""), message.get("more_body", False)
                if data or not more:
                    self._write(data, more=more)
                if not more:
                    self.complete = True
                    self.keep_alive = self.keep_alive and not self._left
                    self._change()
            case other:
                raise RuntimeError(f"unexpected ASGI message {other!r}")

    def _head(self, status: int, headers: Collection[tuple[bytes, bytes]]) -> bytes:
        """Encode the response's head, and determine how its body is delimited."""
        lines = [b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b""))]
        lines += [name + b": " + value for name, value in headers]
        length = dict(headers).get(b"content-length")
        if self._scope["method"] == "HEAD" or status in _BODILESS:
            self._left = 0
        elif length is not None:
            self._left = int(length)
        elif self._scope["http_version"] == "1.1":
            self._writes_chunks = True
            lines.append(b"transfer-encoding: chunked")
        else:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join((*lines, b"", b""))
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1:
            raise RuntimeError("a header has a line break")
        return head

    def _write(self, data: bytes, *, more: bool) -> None:
        if self._writes_chunks:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if not more:
                data += b"0\r\n\r\n"
        elif self._left is not None:
            if self._scope["method"] == "HEAD":
                return
            if len(data) > self._left:
                raise RuntimeError("a response is longer than its head says")
            self._left -= len(data)
            data, self._unsent = self._unsent + data, b""
            self.started = True
        if data:
            self._transport.write(data)
