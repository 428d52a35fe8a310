"""What a WebSocket's responses go on from: the newest of them, and the session that it was held in.

A connection has one session at a time. A chat's model is told all that was said with each request,
so its session is a warm instance for whatever comes; one of words is another's conversation, and
is left for a response that begins a new one.
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
    """One connection's responses.

    Args:
        sessions: Where they are held.
        starter: Begins them.
        keeper: Keeps them.
        visitor: Whose they are.
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
        """Of its session."""
        return None if self._handle is None else self._handle.session_id

    async def answer(self, request: CreateOverWebSocket, size: int) -> AsyncIterator[list[bytes]]:
        """A response's events, as they are sent.

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
        assert not isinstance(turn, Kept)  # noqa: S101 - nothing is sent again here
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
        """What a request goes on from, as far as this connection knows it best."""
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
        if past.items is None and request.store is False:  # its own record will not be there
            owner = principal_of(self._visitor)
            items = await self._keeper.said(past.names, owner, past.param)
            if items is None:
                raise no_previous(previous or "")
            return past._replace(items=items)
        return past

    async def _follow(self, kept: Kept, past: Past) -> None:
        """Go on from here next time."""
        handle = handle_of(kept.response.id, RESPONSE)
        assert handle is not None  # noqa: S101 - it was made of one
        if self._handle is not None and self._handle.session_id != handle.session_id:
            await self._let_go()
        self._handle, self._route = handle, kept.response.model
        self._remember(kept, past)

    def _remember(self, kept: Kept, past: Past) -> None:
        """Have what is not stored at hand, as long as a model could be sent it."""
        self._newest, self._items = kept, []
        if kept.response.store:
            return
        self._items = [*(past.items or ()), *kept.items]
        most = self._sessions.routes[kept.response.model].policy.message_bytes
        if len(msgspec.json.encode(self._items)) > most:
            self._newest, self._items = None, []

    def _forget(self, request: CreateOverWebSocket) -> None:
        """What has not been gone on from is no longer known, unless it is stored."""
        newest = self._newest
        if newest is not None and not newest.response.store and request.previous_response_id:
            self._newest, self._items = None, []

    # Its session

    async def _warm(self, request: CreateOverWebSocket) -> list[Event]:
        """Have the session opened, and what was said be a part of what goes on from here."""
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
        """A session that is open at the model, if its route opens it before there is a turn.

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
        """Leave the session; where nobody else can go on with it, it is closed.

        Somebody may have gone on by now with what is stored, a warm-up too.
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
        """The connection is over."""
        await self._let_go()


def written(events: list[Event]) -> list[bytes]:
    """Events, each as it is sent."""
    return [_encode(event) for event in events]
