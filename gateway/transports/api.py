"""Sessions over HTTP: a message is a request; its reply is the response, or a stream of events.

A request reads the session's log as a connection does, without taking the session over, so it also
works with sessions that a browser has opened. The turn continues even if the request is aborted.
"""

import contextlib
import math
import secrets
import time
from collections.abc import AsyncGenerator
from itertools import count

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from gateway.admission import Refused, Visitor
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode, Outcome
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import (
    ErrorMessage,
    MessageDelta,
    MessageDone,
    ServerMessage,
    SessionClose,
    SessionClosed,
)
from gateway.session.dates import rfc3339
from gateway.session.keys import digest
from gateway.session.policy import Telling
from gateway.session.table import State
from gateway.sessions import Sessions, TooManySessions
from gateway.transports import problems, sse
from gateway.transports.drafts import Draft, body_of, json_of, reply_of
from gateway.transports.exchange import (
    AlreadyAnswered,
    Asker,
    Crashed,
    Exchange,
    Moved,
    gone,
    join,
    principal_of,
)
from gateway.transports.gate import ApiRequest, Gate
from gateway.transports.leaving import Leaving
from gateway.transports.listener import Ended, Listener, until_opened
from gateway.transports.told import cannot_be_told, most_bytes, told_of

MAX_DIGITS = 15
"""Maximum digits of an event's number."""

FULL_SECONDS = 5.0
"""``Retry-After`` when the gateway has reached its limit of sessions."""


class Opened(msgspec.Struct, frozen=True):
    """A session that was opened.

    Attributes:
        session_id: The gateway's id of the session.
        resume_key: The session's password: send it as ``Session-Key`` with further requests.
        expires_at: When it expires at the model (RFC 3339); null if the model has not said.
        context: With ``history``: whether the model is told the conversation, or is sent the user's
            messages again and answers them anew.
    """

    session_id: str
    resume_key: str
    expires_at: str | None
    context: Telling | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"<Opened {self.session_id}>"


class SessionState(Discreet, frozen=True, kw_only=True):
    """The state of a session.

    Attributes:
        session_id: The gateway's id of the session.
        route: The name of its route.
        state: Its state at the model.
        expires_at: When it expires at the model (RFC 3339); null if the model has not said.
        last_event: The number of its newest event.
        running: The id of the message that is at the model.
        queued: The ids of the queued messages, in order.
    """

    session_id: str
    route: str
    state: State
    expires_at: str | None
    last_event: int
    running: str | None
    queued: list[str]


class Api:
    """The paths under ``/v1`` that serve sessions.

    Args:
        sessions: All sessions.
        gate: Authorizes each request.
        heartbeat_seconds: Maximum time without data on a stream.
    """

    def __init__(self, sessions: Sessions, gate: Gate, heartbeat_seconds: float) -> None:
        self._sessions = sessions
        self._gate = gate
        self._heartbeat_seconds = heartbeat_seconds
        self._own_ids, self._numbers = secrets.token_hex(16), count()  # of messages without one
        self._most_bytes = sessions.message_bytes

    def routes(self) -> list[HttpRoute]:
        """Return the routes of all paths."""
        session = "/v1/sessions/{session_id}"
        return [
            self._gate.path(f"{session}/messages", POST=self.send),
            self._gate.path("/v1/routes/{route:path}/sessions", POST=self.open),
            self._gate.path(f"{session}/events", GET=self.events),
            self._gate.path(session, GET=self.look, DELETE=self.close),
        ]

    # A session

    async def open(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Open a session."""
        route = self._sessions.routes.get(request.path_params["route"])
        if route is None:
            _count(visitor)
            raise Refused(ErrorCode.UNKNOWN_ROUTE, "The route does not exist.")
        policy = route.policy
        if not policy.resume_seconds:
            _count(visitor)
            text = "This route has no sessions between requests: its resume_seconds is 0."
            raise Refused(ErrorCode.VALIDATION_ERROR, text)
        self._check_is_serving()
        try:
            body = await body_of(request, most_bytes(policy))
        except Refused as too_large:
            _count(visitor)
            raise too_large if policy.telling else cannot_be_told() from None
        _count(visitor, len(body))
        told = told_of(body, policy)
        try:
            runner = await self._sessions.open(route, principal_of(visitor))
        except TooManySessions:
            self._check_is_serving()  # it was, before the body came
            text = "The gateway has reached its limit of sessions."
            raise Refused(ErrorCode.UNAVAILABLE, text, FULL_SECONDS) from None
        key, listener = secrets.token_urlsafe(32), Listener()
        runner.start(digest(key), told=told)
        listener.begin(runner, runner.subscribe(listener, 0))
        with Leaving(request, listener.cut):
            opened = await until_opened(runner, listener)
        if isinstance(opened, ErrorMessage):
            return problems.problem(opened)
        location = f"{request.scope.get('root_path', '')}/v1/sessions/{runner.id}"
        context = policy.telling if told else None
        content = Opened(opened.session_id, key, opened.expires_at, context or UNSET)
        return json_of(content, 201, Location=location)

    async def look(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Return a session's state."""
        _count(visitor)
        asker = _asker(request, visitor)
        found = await self._sessions.look(asker.session_id, asker.shown, asker.principal)
        if found is None:
            raise gone()
        visitor.check_route(found.route)
        expires_at = None if found.model is None else found.model.expires_at
        content = SessionState(
            session_id=found.id,
            route=found.route,
            state=found.state,
            expires_at=None if expires_at is None else rfc3339(expires_at),
            last_event=found.last,
            running=None if found.running is None else found.running.id,
            queued=[turn.id for turn in found.waiting],
        )
        return json_of(content)

    async def close(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Close a session, at the model too."""
        _count(visitor)
        listener = Listener()
        await join(self._sessions, _asker(request, visitor), None, listener)
        try:
            listener.conversation.handle(SessionClose(), listener.client)
            with Leaving(request, listener.cut):
                while not any(isinstance(each, SessionClosed) for each in await listener.next()):
                    pass
        except Ended as ended:
            if ended.code == CloseCode.RESTARTING:
                return _moved(may_retry=True)
        finally:
            listener.leave()
        return Response(status_code=204)

    async def events(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Stream a session's events."""
        _count(visitor)
        self._check_is_serving()
        newest = request.named.get(b"last-event-id", b"0")
        if not (newest.isdigit() and len(newest) <= MAX_DIGITS):
            raise Refused(ErrorCode.BAD_MESSAGE, "Last-Event-ID must be an event number.")
        asker, listener = _asker(request, visitor), Listener(_key(request))
        visitor.on_withdrawn = listener.cut
        await join(self._sessions, asker, int(newest), listener)
        return sse.EventStream(self._stream(listener, visitor), listener.leave)

    async def _stream(self, listener: Listener, visitor: Visitor) -> AsyncGenerator[bytes]:
        """Yield a session's events until it ends or the client's credential expires."""
        with contextlib.suppress(Ended):
            while (left := _time_left(visitor)) > 0:
                try:
                    messages = await listener.next(min(left, self._heartbeat_seconds))
                except TimeoutError:
                    yield sse.KEEP_ALIVE
                else:
                    yield sse.encode(messages)

    # A message

    async def send(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Send a message, and return its reply or stream it."""
        self._check_is_serving()
        asker = _asker(request, visitor)
        body = await body_of(request, self._most_bytes)
        _count(visitor, len(body))
        draft = Draft(request, body, f"{self._own_ids}-{next(self._numbers)}")
        seconds = self._heartbeat_seconds if draft.streams else None
        exchange = Exchange(self._sessions, asker, draft.message, len(body), seconds)
        response = None
        try:
            with Leaving(request, exchange.cut):
                response = await _answer(exchange, draft)
        except Moved:
            return _moved(may_retry=draft.is_named)
        except Crashed:
            text = "The session failed. The model may have seen the message."
            return problems.response(500, ErrorCode.INTERNAL, text, outcome=Outcome.UNKNOWN)
        except AlreadyAnswered:
            text = "The message with this Idempotency-Key has ended; its reply is no longer kept."
            return problems.response(409, "duplicate", text)
        finally:
            if not isinstance(response, sse.EventStream):
                exchange.leave()
        return response

    def _check_is_serving(self) -> None:
        if self._sessions.draining:
            text = "This gateway is shutting down; try again."
            raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)


def _count(visitor: Visitor, size: int = 0) -> None:
    """Count a request of this many bytes against the rate limit of messages.

    Raises:
        Refused: The limit is exceeded.
    """
    if wait := visitor.take(size):
        text = "Rate limit exceeded; try again later."
        raise Refused(ErrorCode.RATE_LIMITED, text, wait)


def _asker(request: ApiRequest, visitor: Visitor) -> Asker:
    return Asker(request.path_params["session_id"], digest(_key(request)), visitor)


def _key(request: ApiRequest) -> str:
    return request.text(b"session-key")


def _time_left(visitor: Visitor) -> float:
    """Seconds until the client's credential expires."""
    return math.inf if visitor.expires_at is None else visitor.expires_at - time.time()


def _moved(*, may_retry: bool) -> Response:
    """The response for a session that moved away while its request was running."""
    return problems.response(
        503,
        ErrorCode.UNAVAILABLE,
        "The session is moving to another gateway. "
        + ("Try again." if may_retry else "Its events say what became of the message."),
        retryable=may_retry,
        retry_after=WAIT_SECONDS if may_retry else None,
        outcome=Outcome.UNKNOWN,
    )


async def _answer(exchange: Exchange, draft: Draft) -> Response:
    """Return the response to a message, as soon as its kind is known."""
    parts = list[MessageDelta]()
    while True:
        messages = await exchange.next()
        for message in messages:
            if isinstance(message, ErrorMessage):
                return problems.problem(message)
            if draft.streams:
                continue
            if isinstance(message, MessageDelta):
                parts.append(message)
            elif isinstance(message, MessageDone):
                if message.deltas != len(parts):
                    raise AlreadyAnswered
                return reply_of(message, draft.message_id, parts)
        if draft.streams and messages:
            return sse.EventStream(_events(exchange, messages), exchange.leave)


async def _events(exchange: Exchange, messages: list[ServerMessage]) -> AsyncGenerator[bytes]:
    """Yield a message's server-sent events, starting with those that have already arrived."""
    yield sse.encode(messages)
    with contextlib.suppress(
        AlreadyAnswered, Crashed, Moved, Refused
    ):  # the client can continue with the session's events
        while not (messages and isinstance(messages[-1], MessageDone | ErrorMessage)):
            messages = await exchange.next()
            yield sse.encode(messages) if messages else sse.KEEP_ALIVE
