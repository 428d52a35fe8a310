"""The state that a WebSocket's responses share: the newest of them, and its session.

A connection has one session at a time. A chat model is sent the whole history with each request,
so that its session can serve any conversation on a warm instance. A text model's session belongs
to one conversation, and is left by a response that starts another one.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

import msgspec

from gateway.admission import Refused, Visitor
from gateway.protocol.messages import ErrorMessage, SessionClose
from gateway.route import Route
from gateway.sessions import Sessions
from gateway.transports.exchange import Moved, join, principal_of
from gateway.transports.listener import Listener, until_opened
from gateway.transports.openai.asking import Ask, Failed
from gateway.transports.openai.errors import unsupported
from gateway.transports.openai.ids import Handle, handle_of
from gateway.transports.openai.items import Item, taken
from gateway.transports.openai.keeping import Keeper, Kept, record_name
from gateway.transports.openai.opening import open_session
from gateway.transports.openai.output import Event, Output
from gateway.transports.openai.past import RESPONSE, Past, no_previous, past_of
from gateway.transports.openai.relay import Relay
from gateway.transports.openai.requests import CreateOverWebSocket, check
from gateway.transports.openai.resource import response_of
from gateway.transports.openai.starting import Starter

_encode = msgspec.json.Encoder().encode


class Chain:
    """The responses of one connection.

    Args:
        sessions: The replica's sessions.
        starter: Starts responses.
        keeper: Stores responses.
        visitor: The client.
    """

    def __init__(
        self, sessions: Sessions, starter: Starter, keeper: Keeper, visitor: Visitor
    ) -> None:
        self._sessions = sessions
        self._starter = starter
        self._keeper = keeper
        self._visitor = visitor
        self._handle: Handle | None = None  # of the newest turn of its session
        self._route = ""
        self._newest: Kept | None = None
        self._items = list[Item]()
        self._warmed = 0

    @property
    def session_id(self) -> str | None:
        """Id of the current session; None if there is none."""
        return None if self._handle is None else self._handle.session_id

    async def answer(self, request: CreateOverWebSocket, size: int) -> AsyncIterator[list[bytes]]:
        """Run a request, and yield the response's events in JSON.

        Raises:
            Failed: See `Starter.begin`.
            Moved: See `Turn.next`.
            Refused: See `Starter.begin`.
        """
        if request.generate is False:
            yield written(await self._warm(request))
            return
        past = await self._past(request)
        ask = Ask(request, self._visitor, size, past=past, closes=False)
        try:
            turn = await self._starter.begin(ask)
        except (Failed, Refused):
            self._forget(request)
            raise
        assert not isinstance(turn, Kept)  # noqa: S101 - retries aren't recognized here
        most = self._sessions.routes[request.model].policy.log_bytes // 2
        relay = Relay(self._sessions, turn, written, most)
        try:
            while not relay.is_through:
                yield await relay.next()
        finally:
            relay.leave()
        if not turn.is_over:
            raise Moved
        await self._follow(turn.kept, past)
        if turn.response.status == "failed":
            self._forget(request)

    async def _past(self, request: CreateOverWebSocket) -> Past:
        """Find a request's history, in this connection's state if possible."""
        newest, handle = self._newest, self._handle
        previous = request.previous_response_id
        if previous is None and request.conversation_id is None:
            if handle is None or self._route != request.model:
                return Past()
            if self._starter.route_of(request.model, self._visitor).policy.chat or not handle.turn:
                return Past(head=handle, route=self._route, items=[])
            await self._let_go()
            return Past()
        if newest is not None and newest.response.id == previous:
            is_stored = newest.response.store
            names = (*newest.before, record_name("response", previous))
            past = Past(
                "previous_response_id",
                names=names if is_stored else (),
                head=handle,
                is_heard=bool(newest.message_id) or not newest.input,
                route=self._route,
                items=None if is_stored else self._items,
            )
        else:
            settle = partial(self._starter.settle, self._visitor)
            past = await past_of(request, principal_of(self._visitor), self._keeper, settle)
        if past.items is None and request.store is False:  # it will have no record
            owner = principal_of(self._visitor)
            items = await self._keeper.said(past.names, owner, past.param)
            if items is None:
                raise no_previous(previous or "")
            return past._replace(items=items)
        return past

    async def _follow(self, kept: Kept, past: Past) -> None:
        """Make a response the newest, and its session the current one."""
        handle = handle_of(kept.response.id, RESPONSE)
        assert handle is not None  # noqa: S101 - its id contains one
        if self._handle is not None and self._handle.session_id != handle.session_id:
            await self._let_go()
        self._handle, self._route = handle, kept.response.model
        self._remember(kept, past)

    def _remember(self, kept: Kept, past: Past) -> None:
        """Hold the items of a response that is not stored, if they still fit in a message."""
        self._newest, self._items = kept, []
        if kept.response.store:
            return
        self._items = [*(past.items or ()), *kept.items]
        most = self._sessions.routes[kept.response.model].policy.message_bytes
        if len(msgspec.json.encode(self._items)) > most:
            self._newest, self._items = None, []

    def _forget(self, request: CreateOverWebSocket) -> None:
        """Forget the newest response if a request failed to continue it, unless it is stored."""
        newest = self._newest
        if newest is not None and not newest.response.store and request.previous_response_id:
            self._newest, self._items = None, []

    # Its session

    async def _warm(self, request: CreateOverWebSocket) -> list[Event]:
        """Open the session, and add the request's input to the history."""
        route = self._starter.route_of(request.model, self._visitor)
        policy = route.policy
        whole = policy.chat or not policy.sends_history
        check(request, chat=policy.chat, whole=whole)
        if request.input and not policy.chat:
            text = "`generate: false` takes no `input` on this route."
            raise unsupported("input", text)
        past = await self._past(request)
        if self._handle is None or self._route != request.model:
            await self._let_go()
            self._handle, self._route = await self._open(route), request.model
        self._warmed += 1
        response_id = self._handle._replace(turn=0, attempt=self._warmed).written(RESPONSE)
        made = Output(response_of(request, response_id, time.time(), whole=whole))
        made.end("completed", time.time())
        events = [{**event, "sequence_number": number} for number, event in enumerate(made.take())]
        kept = Kept(
            owner=principal_of(self._visitor),
            response=made.now(),
            input=taken(request.input or [], f"{response_id} input"),
            before=past.names,
            message_id="",
            after=0,
            count=len(events),
            chat=policy.chat,
        )
        if kept.response.store:
            await self._keeper.put(record_name("response", response_id), kept)
        self._remember(kept, past)
        return events

    async def _open(self, route: Route) -> Handle:
        """Open a session, at the model too if the route opens sessions before their first turn.

        Raises:
            Refused: It can't be opened.
        """
        runner, handle = await open_session(self._sessions, route, principal_of(self._visitor))
        listener = Listener()
        await join(self._sessions, handle.asker(self._visitor), 0, listener)
        opened = await until_opened(runner, listener)
        if isinstance(opened, ErrorMessage):
            raise Refused(opened.code, opened.message)
        return handle._replace(turn=0)

    async def _let_go(self) -> None:
        """Leave the session, and close it if nothing can continue it.

        Other clients may continue a stored response, even one without output (`generate: false`).
        """
        handle, newest = self._handle, self._newest
        self._handle = None
        if handle is None or (newest is not None and newest.response.store):
            return
        listener = Listener()
        with contextlib.suppress(Refused):
            await join(self._sessions, handle.asker(self._visitor), None, listener)
            listener.conversation.handle(SessionClose(), listener.client)
        listener.leave()

    async def leave(self) -> None:
        """Release the session when the connection has closed."""
        await self._let_go()


def written(events: list[Event]) -> list[bytes]:
    """Encode events as JSON."""
    return [_encode(event) for event in events]
