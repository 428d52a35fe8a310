"""Starts a response: in the session that has its history, or in a new one.

The n-th response of a session is the message ``r<n>``. The request that sends it first, at any
replica, continues the session; all others branch: a new session is opened with the history up to
there. So a turn is never part of two conversations, and a session never mixes two.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from msgspec import structs

from gateway.admission import Refused
from gateway.conversation import Conversation
from gateway.errors import ErrorCode
from gateway.protocol.messages import (
    ErrorMessage,
    MessageAccepted,
    MessageSend,
    ServerMessage,
    SessionClose,
)
from gateway.route import Route
from gateway.session.bodies import body_of
from gateway.session.events import Words
from gateway.session.keys import digest
from gateway.session.policy import Policy
from gateway.sessions import Sessions, TooManySessions
from gateway.transports.exchange import AlreadyAnswered, Crashed, Exchange, IdTaken, Moved
from gateway.transports.openai.asking import Ask, Failed, unknown
from gateway.transports.openai.composing import chat_message
from gateway.transports.openai.errors import Invalid, unsupported
from gateway.transports.openai.ids import Handle, new_key
from gateway.transports.openai.items import Item, taken
from gateway.transports.openai.keeping import Asked, Entry, Keeper, Kept, record_name
from gateway.transports.openai.past import (
    RESPONSE,
    Past,
    entry_of,
    locked,
    may_be_followed,
    no_previous,
)
from gateway.transports.openai.resource import response_of
from gateway.transports.openai.saying import chat_request, check_calls, newest_words, spoken
from gateway.transports.openai.turns import Turn

FULL_SECONDS = 5.0
"""``retry_after`` in seconds when the gateway has reached its limit of sessions."""

MAX_ATTEMPTS = 100
"""Maximum number of attempts at a turn in the same session; after that, the response branches."""


class _Message(NamedTuple):
    """A turn's input.

    Attributes:
        message: The message, whose id is yet to be set.
        told: The history that a new session starts with.
    """

    message: MessageSend
    told: tuple[Words, ...] = ()

    def send(self, message_id: str, _route: Route) -> MessageSend:
        """Return the message with an id."""
        return structs.replace(self.message, id=message_id)

    @property
    def size(self) -> int:
        """Number of bytes of the message's body."""
        return len(body_of(self.message)[0])


class Opening:
    """The start of one response.

    Args:
        sessions: The replica's sessions.
        keeper: Stores the response.
        ask: The request.
        route: Route of the request's model.
        past: History of the request.
        now: Current time, in seconds since the epoch.
    """

    def __init__(
        self,
        sessions: Sessions,
        keeper: Keeper,
        ask: Ask,
        *,
        route: Route,
        past: Past,
        now: float,
    ) -> None:
        self._sessions = sessions
        self._keeper = keeper
        self._ask = ask
        self._route = route
        self._past = past
        self._now = now
        self._exchange: Exchange | None = None
        self._has_reserved = False

    async def run(self, sent: Handle | None) -> Turn:
        """Start the response.

        Args:
            sent: Turn that the request was sent as before, if it is a retry.

        Raises:
            Failed: The outcome of its turn is unknown.
            Refused: It can't be started.
        """
        try:
            message, heard = await self._message()
            _check_size(message, self._route.policy)
            if sent is not None:
                return await self._send_again(sent, message)
            turn = None
            if heard is not None:
                turn = await self._go_on(heard, message)
                message = message if turn else await self._retold(message)
            return turn or await self._open(message)
        except Moved:
            raise self._moved() from None
        except BaseException:
            self._leave()
            if self._has_reserved and self._past.entry is not None:
                with contextlib.suppress(Refused):  # the original error matters more
                    await self._keeper.delete(self._past.entry)
            raise

    async def _send_again(self, handle: Handle, message: _Message) -> Turn:
        """Send a message again: its session knows whether it has already accepted it."""
        try:
            return await self._send(handle, message, claims=False)
        except Refused as refused:
            if refused.code is not ErrorCode.SESSION_LOST:
                raise
            raise unknown() from None

    def _moved(self) -> Failed:
        """Error of a turn whose session has just left this replica.

        It is retryable if the retry is recognized, and then gets this turn's result.
        """
        retryable = self._ask.known.may_repeat
        text = "The session is moving to another gateway"
        return unknown(
            f"{text}; send this again." if retryable else f"{text}.", retryable=retryable
        )

    # Input of the model

    async def _message(self) -> tuple[_Message, Handle | None]:
        """Return the input, and the turn after which its session has the whole history, if any."""
        request, past = self._ask.request, self._past
        own = taken(request.input or [], "")
        if not own and not past.names and not past.items:
            raise Invalid("The input is empty.", "input", code="missing_required_parameter")
        heard = past.head if past.route == request.model else None
        if self._route.policy.chat:
            return self._chat(await self._said(), own), heard
        before, words = newest_words(own)
        message = MessageSend(id="r", text=words)
        if heard is not None and past.is_heard and not before:
            return _Message(message), heard
        return _Message(message, spoken([*await self._said(), *before])), None

    async def _retold(self, message: _Message) -> _Message:
        """Add the history to the input, for a new session."""
        if self._route.policy.chat:
            return message
        return message._replace(told=spoken(await self._said()))

    async def _said(self) -> list[Item]:
        """Return the items of the history."""
        past = self._past
        if past.items is not None:
            return past.items
        items = await self._keeper.said(past.names, self._ask.owner, past.param)
        if items is None:
            if past.param == "previous_response_id":
                raise no_previous(self._ask.request.previous_response_id or "")
            text = "Part of this conversation is no longer kept."
            raise Invalid(text, past.param, code="not_kept")
        return items

    def _chat(self, said: Sequence[Item], own: Sequence[Item]) -> _Message:
        """Return the request of a chat model: the whole conversation, as it keeps no history."""
        policy, items = self._route.policy, [*said, *own]
        check_calls(items)
        body = chat_request(self._ask.request, items)
        if policy.streams:
            body["stream_options"] = {"include_usage": True}
        return _Message(chat_message("r", policy, body, stream=True))

    # Sessions

    async def _go_on(self, head: Handle, message: _Message) -> Turn | None:
        """Continue a session; None if another turn has continued it, or it is gone."""
        for attempt in range(MAX_ATTEMPTS):
            handle = head._replace(turn=head.turn + 1, attempt=attempt)
            try:
                return await self._send(handle, message, claims=True)
            except IdTaken:
                kept = await self._keeper.response(handle.written(RESPONSE), self._ask.owner)
                if kept is None or not may_be_followed(kept, chat=self._route.policy.chat):
                    return None
            except Refused as refused:
                if refused.code is not ErrorCode.SESSION_LOST:
                    raise
                return None
            finally:
                self._leave()
        return None

    async def _open(self, message: _Message) -> Turn:
        """Send the message to a new session that starts with the history."""
        if message.told and self._route.policy.telling is None:
            text = (
                "This route can't start from an earlier conversation: it can only continue the "
                "newest response of a conversation, while its session is open."
            )
            raise unsupported(self._past.param, text)
        runner, handle = await open_session(
            self._sessions, self._route, self._ask.owner, message.told
        )
        try:
            return await self._send(handle, message, claims=False)
        except Refused:
            runner.handle(SessionClose())  # no client knows its resume key
            raise

    async def _send(self, handle: Handle, message: _Message, *, claims: bool) -> Turn:
        """Send the message, wait until it is accepted, and store the response."""
        ask, response_id = self._ask, handle.written(RESPONSE)
        if self._past.entry is not None:
            await self._reserve(self._past.entry, response_id)
        if ask.known.name is not None:
            await self._keeper.put(ask.known.name, Asked(owner=ask.owner, response_id=response_id))
        before = await self._before(response_id)
        self._exchange = exchange = Exchange(
            self._sessions,
            handle.asker(ask.visitor),
            partial(message.send, handle.message_id),
            ask.size,
            ask.seconds,
            claims=claims,
        )
        try:
            told = await _first(exchange)
        except (AlreadyAnswered, Crashed):
            raise unknown() from None
        accepted = next(each for each in told if isinstance(each, MessageAccepted))
        self._has_reserved = False  # held until the turn's result is stored
        request, policy = ask.request, self._route.policy
        whole = policy.chat or not policy.sends_history
        kept = Kept(
            owner=ask.owner,
            response=response_of(request, response_id, self._now, whole=whole),
            input=taken(request.input or [], f"{response_id} input"),
            before=before,
            message_id=handle.message_id,
            after=accepted.event - 1,
            chat=policy.chat,
        )
        if ask.is_stored or self._past.entry is not None:  # the entry stays open until it ends
            try:
                await self._keeper.put(record_name("response", response_id), kept)
            except Refused as refused:  # but the turn is running
                raise unknown(refused.text, retryable=ask.known.may_repeat) from None
        self._exchange = None
        return Turn(exchange, kept, partial(self._ended, exchange), told)

    async def _before(self, response_id: str) -> tuple[str, ...]:
        """Return the names of the history's records; store what has none."""
        past, ask = self._past, self._ask
        if past.names or not past.items or not ask.is_stored:
            return past.names
        name = record_name("response", f"{response_id} before")
        await self._keeper.put(name, Entry(owner=ask.owner, items=past.items))
        return (name,)

    async def _reserve(self, entry: str, response_id: str) -> None:
        """Reserve the conversation's next entry for this response."""
        place = Entry(
            owner=self._ask.owner,
            items=[],
            response_id=response_id,
            is_open=True,
            since=self._now,
        )
        if self._has_reserved:
            await self._keeper.put(entry, place)
        elif not await self._keeper.add(entry, place):
            raise locked()
        self._has_reserved = True

    async def _ended(self, exchange: Exchange, kept: Kept) -> None:
        """Store a response that has ended, and close its conversation's entry.

        A response that is not stored is deleted, and its session closed if the request says so.
        """
        entry, name = self._past.entry, record_name("response", kept.response.id)
        if not self._ask.is_stored and self._ask.closes:
            exchange.close_session()
        try:
            if self._ask.is_stored:
                await self._keeper.replace(name, kept)
        finally:
            if entry is not None:
                await self._keeper.put(entry, entry_of(kept))
        if entry is not None and not self._ask.is_stored:
            await self._keeper.delete(name)

    def _leave(self) -> None:
        if self._exchange is not None:
            self._exchange.leave()
            self._exchange = None


async def open_session(
    sessions: Sessions, route: Route, owner: str, told: tuple[Words, ...] = ()
) -> tuple[Conversation, Handle]:
    """Open a session, and return it with the handle of its first turn.

    Args:
        sessions: The replica's sessions.
        route: Route of the session.
        owner: Principal that it belongs to.
        told: Its history; see `gateway.session.events.Start`.

    Raises:
        Refused: It can't be opened.
    """
    try:
        runner = await sessions.open(route, owner)
    except TooManySessions:
        text = "The gateway has reached its limit of sessions."
        raise Refused(ErrorCode.UNAVAILABLE, text, FULL_SECONDS) from None
    key = new_key()
    runner.start(digest(key), told=told)
    return runner, Handle(runner.id, key, 1)


async def _first(exchange: Exchange) -> list[ServerMessage]:
    """Wait until a message is accepted, and return what was received by then.

    Raises:
        Refused: It is not accepted.
    """
    told = list[ServerMessage]()
    while not any(isinstance(each, MessageAccepted) for each in told):
        told += await exchange.next()
        for each in told:
            if isinstance(each, ErrorMessage):
                wait = each.retry_after
                raise Refused(each.code, each.message, wait if isinstance(wait, float) else None)
    return told


def _check_size(message: _Message, policy: Policy) -> None:
    if message.size > policy.message_bytes:
        text = f"With the conversation so far, this is larger than {policy.message_bytes} bytes."
        raise Refused(ErrorCode.TOO_LARGE, text)
