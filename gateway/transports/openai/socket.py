"""``/openai/v1/responses`` over WebSocket: one session and one response at a time.

Responses that are not stored are known only to their connection. They are lost when it closes, and
their session is closed.
"""

import asyncio
import time
from collections import deque

import structlog
from starlette.websockets import WebSocket

from gateway.admission import Admission, Refused, Visitor
from gateway.budget import COUNTED_BYTES, ByteBudget
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode
from gateway.sessions import Sessions
from gateway.transports.credentials import credentials_of, may_be_echoed
from gateway.transports.exchange import Moved
from gateway.transports.link import LINK, Link
from gateway.transports.open import Connections, OnEnd
from gateway.transports.openai.asking import Failed
from gateway.transports.openai.chain import Chain, written
from gateway.transports.openai.errors import Invalid, answer_of, error_of, status_of
from gateway.transports.openai.keeping import Keeper
from gateway.transports.openai.output import Event
from gateway.transports.openai.requests import CreateOverWebSocket, parse
from gateway.transports.openai.starting import Starter
from gateway.transports.origins import REFUSED, Origins
from gateway.transports.proxies import Proxies

log = structlog.stdlib.get_logger("gateway.connections")

MAX_WAITING = 16
"""Maximum number of queued requests of a connection."""


class ResponsesSocket:
    """The handler of WebSocket connections.

    Args:
        sessions: The replica's sessions.
        starter: Starts responses.
        keeper: Stores responses.
        admission: Authenticates clients, and limits their requests.
        origins: Origins whose pages may connect.
        proxies: Finds clients' addresses.
        connections: Counts connections.
        most_bytes: Maximum size of a connection's queued requests, if there is more than one.
    """

    def __init__(
        self,
        sessions: Sessions,
        starter: Starter,
        keeper: Keeper,
        *,
        admission: Admission,
        origins: Origins,
        proxies: Proxies,
        connections: Connections,
        most_bytes: int,
    ) -> None:
        self._sessions = sessions
        self._most_bytes = most_bytes
        self._starter = starter
        self._keeper = keeper
        self._admission = admission
        self._origins = origins
        self._proxies = proxies
        self._connections = connections

    async def serve(self, websocket: WebSocket) -> None:
        """Serve a connection, or refuse the handshake with an HTTP response."""
        headers, client = websocket.headers, self._proxies.client(websocket)
        origin, host = headers.get("origin"), headers.get("host")
        if not self._origins.allow(origin, host, route=None, client=client):
            refused = Refused(ErrorCode.FORBIDDEN, REFUSED)
            await websocket.send_denial_response(answer_of(refused))
            return
        visitor = self._admission.arrive(client.address)
        try:
            await self._identify(websocket, visitor)
        except Refused as refused:
            visitor.release()
            await websocket.send_denial_response(answer_of(refused))
            return
        offered = filter(may_be_echoed, websocket.scope["subprotocols"])
        await websocket.accept(next(offered, None))
        on_end = self._connections.opened(None, "openai", client.address)
        chain = Chain(self._sessions, self._starter, self._keeper, visitor)
        link: Link = websocket.scope["extensions"][LINK]
        connection = _Connection(
            link, chain, visitor, on_end, budget=self._sessions.budget, most_bytes=self._most_bytes
        )
        connection.begin()
        self._sessions.spawn(connection.run(self._sessions))

    async def _identify(self, websocket: WebSocket, visitor: Visitor) -> None:
        shown = credentials_of(
            websocket.headers.get("authorization", ""), websocket.scope["subprotocols"]
        )
        await visitor.identify(shown, route=None)
        if visitor.principal is None:
            raise Refused(ErrorCode.UNAUTHENTICATED, "This requires a key or a token.")
        if not self._connections.has_room():
            text = "The gateway has reached its limit of connections."
            raise Refused(ErrorCode.UNAVAILABLE, text)


class _Connection:
    """A client's connection, whose requests run one after the other.

    Attributes:
        held: See `gateway.budget.Holder`.
    """

    def __init__(
        self,
        link: Link,
        chain: Chain,
        visitor: Visitor,
        on_end: OnEnd,
        *,
        budget: ByteBudget,
        most_bytes: int,
    ) -> None:
        self.held = 0
        self._budget = budget
        self._most_bytes = most_bytes
        self._waiting_bytes = 0
        self._link = link
        self._chain = chain
        self._visitor = visitor
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames: deque[str | bytes | Refused] = deque()
        self._is_open = True
        self._news: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start receiving frames; must be called before the handler of the handshake returns."""
        visitor = self._visitor
        visitor.on_withdrawn = self._lose
        if visitor.expires_at is not None:
            left = max(0.0, visitor.expires_at - time.time())
            self._expiry = self._loop.call_later(left, self._lose)
        self._link.admit()
        self._link.take_frames(self._frame, self._wake, self._ended)

    async def run(self, sessions: Sessions) -> None:
        """Run requests until the connection closes and the running response has ended."""
        try:
            while self._is_open:
                if not self._frames:
                    await self._wait()
                elif sessions.draining:
                    self._close(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE)
                else:
                    await self._answer(self._next())
        except Exception:
            log.exception("a connection failed")
            self._close(CloseCode.INTERNAL, ErrorCode.INTERNAL)
        finally:
            self._frames.clear()
            self._count(0)
            await self._chain.leave()
            if self._expiry is not None:
                self._expiry.cancel()
            self._visitor.release()

    # Input

    def _frame(self, frame: str | bytes) -> None:
        size, waiting = _size(frame), self._waiting_bytes
        if len(self._frames) >= MAX_WAITING or (waiting and waiting + size > self._most_bytes):
            self._close(CloseCode.TOO_MANY, "too many requests are queued")
        if not self._is_open:
            return
        refused = self._refusal(size)
        if refused is None:
            self._count(waiting + size)
        self._frames.append(refused or frame)
        self._wake()

    def _refusal(self, size: int) -> Refused | None:
        """Return the error of a refused request, which is sent after the responses before it."""
        if wait := self._visitor.take(size):
            text = "Rate limit exceeded; try again later."
            return Refused(ErrorCode.RATE_LIMITED, text, wait)
        if not self._budget.admits(self, size):
            text = "The gateway's buffers are full; send this again later."
            return Refused(ErrorCode.QUEUE_FULL, text, WAIT_SECONDS)
        return None

    def _next(self) -> str | bytes | Refused:
        """Remove and return the oldest request."""
        frame = self._frames.popleft()
        if not isinstance(frame, Refused):
            self._count(self._waiting_bytes - _size(frame))
        return frame

    def _count(self, waiting: int) -> None:
        self._waiting_bytes = waiting
        held = waiting if waiting > COUNTED_BYTES else 0
        if held or self.held:
            self._budget.change(self, held)

    def give_back(self) -> None:
        """See `gateway.budget.Holder`. Accepted requests are kept: each of them is answered."""

    def _ended(self, code: int) -> None:
        self._is_open = False
        self._on_end(int(code), self._chain.session_id)
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _wait(self) -> None:
        self._news = self._loop.create_future()
        await self._news

    def _lose(self) -> None:
        """Close the connection because its credentials have expired or were revoked."""
        self._close(CloseCode.UNAUTHENTICATED, ErrorCode.UNAUTHENTICATED)

    def _close(self, code: CloseCode, reason: str) -> None:
        if self._is_open:
            self._is_open = False
            self._link.close(code, reason)
            self._wake()

    # Responses

    async def _answer(self, frame: str | bytes | Refused) -> None:
        try:
            if isinstance(frame, Refused):
                raise frame
            request = self._request(frame)
            async for frames in self._chain.answer(request, _size(frame)):
                await self._tell(frames)
        except Failed as failed:
            await self._tell(_error(error_of(failed.error), status_of(failed.error)))
        except Refused as refused:
            await self._tell(_error(error_of(refused), status_of(refused)))
        except Moved:
            self._close(CloseCode.RESTARTING, ErrorCode.UNAVAILABLE)

    def _request(self, frame: str | bytes) -> CreateOverWebSocket:
        """Parse a request.

        Raises:
            Refused: It is malformed, or not supported over a WebSocket.
        """
        request = parse(frame, CreateOverWebSocket)
        for name, wrong in (
            ("stream", request.stream is False),
            ("background", request.background),
        ):
            if wrong:
                raise Invalid(
                    f"'{name}' is not supported over a WebSocket.", name, code="unsupported"
                )
        return request

    async def _tell(self, frames: list[bytes]) -> None:
        """Send frames when the connection can take them, unless it has closed."""
        while self._is_open and not self._link.can_write:
            await self._wait()
        if self._is_open and frames:
            self._link.write_frames(frames, text=True)


def _size(frame: str | bytes) -> int:
    """Return the number of bytes of a frame."""
    return len(frame) if isinstance(frame, bytes) or frame.isascii() else len(frame.encode())


def _error(error: Event, status: int) -> list[bytes]:
    return written([{"type": "error", "status": status, "error": error}])
