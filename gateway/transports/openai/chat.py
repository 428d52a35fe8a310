"""``/openai/v1/chat/completions``: maps requests with whole conversations to sessions.

If a client disconnects before the response starts, its turn continues: the client may retry, and
then gets the result of the first request. If it disconnects during a stream, its turn is cancelled:
nobody could retrieve the rest.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.admission import Refused, Visitor
from gateway.errors import WAIT_SECONDS, ErrorCode, Outcome
from gateway.protocol.messages import (
    ErrorMessage,
    ErrorObject,
    ServerMessage,
)
from gateway.sessions import Sessions
from gateway.transports import sse
from gateway.transports.drafts import NOT_STORED, body_of
from gateway.transports.exchange import (
    AlreadyAnswered,
    Crashed,
    Exchange,
    IdTaken,
    Moved,
    principal_of,
)
from gateway.transports.gate import ApiRequest
from gateway.transports.leaving import Leaving
from gateway.transports.openai.again import AMBIGUOUS, known_by, on_its_way, reserve
from gateway.transports.openai.asking import Failed
from gateway.transports.openai.chats import (
    alias_of,
    check_words,
    read_chat,
)
from gateway.transports.openai.completing import NOT_KEPT, NOT_KNOWN, TOO_SLOW, Completion, Json
from gateway.transports.openai.errors import answer_of, error_of
from gateway.transports.openai.gate import REQUEST_ID, OpenAiGate
from gateway.transports.openai.ids import Handle, handle_of
from gateway.transports.openai.keeping import Asked, Keeper
from gateway.transports.openai.relay import Relay
from gateway.transports.openai.responses import DONE
from gateway.transports.openai.starting import Starter
from gateway.transports.openai.talks import Ask, Talk, draft_of
from gateway.transports.openai.warm import WarmSessions

PREFIX = "chatcmpl-"

SESSION = "x-session-id"
"""Header that identifies a conversation, like the parameter ``prompt_cache_key``."""

_encode = msgspec.json.Encoder().encode


class ChatCompletions:
    """The handler of chat completions.

    Args:
        sessions: The replica's sessions.
        gate: Wraps the handler.
        starter: Looks up routes.
        keeper: Stores the results of requests.
        warm: Sessions that wait for their next request.
        heartbeat_seconds: Maximum silence of a stream.
        clock: Returns seconds since the epoch.
    """

    def __init__(
        self,
        sessions: Sessions,
        gate: OpenAiGate,
        starter: Starter,
        keeper: Keeper,
        warm: WarmSessions,
        *,
        heartbeat_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._gate = gate
        self._starter = starter
        self._keeper = keeper
        self._warm = warm
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._most_bytes = sessions.message_bytes

    def routes(self) -> list[BaseRoute]:
        """Return the path's route."""
        return [self._gate.path("/openai/v1/chat/completions", POST=self.create)]

    async def create(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Create a chat completion."""
        if self._sessions.draining:
            text = "This gateway is shutting down; try again."
            raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)
        body = await body_of(request, self._most_bytes)
        if wait := visitor.take(len(body)):
            text = "Rate limit exceeded; try again later."
            raise Refused(ErrorCode.RATE_LIMITED, text, wait)
        chat = read_chat(body)
        route = self._starter.route_of(chat.model, visitor)
        if not route.policy.chat:
            check_words(chat)
        owner = principal_of(visitor)
        key = request.headers.get(SESSION) or chat.cache_key
        ask = Ask(
            chat,
            route,
            visitor,
            len(body),
            known=known_by(request, visitor, body),
            draft=draft_of(chat, route.policy),
            alias=alias_of(owner, chat.model, key) if key and route.policy.chat else None,
        )
        try:
            talk = await self._sent_before(ask)
            talk = talk or await self._begin(ask)
            if chat.streams:
                return await self._stream(talk, request, ask)
            return await self._whole(talk, request, ask)
        except Failed as failed:
            return answer_of(failed.error)
        except Moved:
            return answer_of(_moved(may_retry=ask.known.may_repeat))

    # A turn begins

    async def _sent_before(self, ask: Ask) -> Talk | None:
        """Find the turn of the request that this one retries; None if there is none."""
        known = ask.known
        if not known.is_resent or known.name is None:
            return None
        asked = await self._keeper.asked(known.name, ask.owner)
        if asked is None:
            return None
        handle = handle_of(asked.response_id, PREFIX)
        if handle is None:
            raise on_its_way()
        if not known.is_own:
            raise Failed(AMBIGUOUS)
        exchange = self._exchange(ask, handle)
        try:
            told = await exchange.next()
        except (AlreadyAnswered, Crashed, Refused) as error:
            exchange.leave()
            if isinstance(error, Refused) and error.code is not ErrorCode.SESSION_LOST:
                raise
            return self._lost(ask, exchange, handle)
        return self._talk(ask, exchange, handle, told, is_first=False)

    async def _begin(self, ask: Ask) -> Talk:
        """Continue the session that has the request's history, or open another."""
        ask.check()  # before a session is opened for it
        if ask.known.name is not None:  # the client may retry before it is sent to a session
            await reserve(self._keeper, ask.known, ask.owner)
        try:
            return await self._begin_now(ask)
        except Refused:
            await self._forget(ask)
            raise

    async def _begin_now(self, ask: Ask) -> Talk:
        before = ask.chat.before
        warm = await self._warm.take(ask.name(before) if before else None, ask.alias)
        if warm is not None:
            talk = await self._send(ask, warm._replace(turn=warm.turn + 1), is_new=False)
            if talk is not None:
                return talk
        talk = await self._send(
            ask, await self._warm.open(ask.route, ask.owner, ask.told), is_new=True
        )
        assert talk is not None  # noqa: S101 - it is new
        return talk

    async def _send(self, ask: Ask, handle: Handle, *, is_new: bool) -> Talk | None:
        """Send a turn; None if the session is gone without having it, or has continued."""
        exchange = self._exchange(ask, handle, claims=not is_new)
        try:
            if ask.known.name is not None:
                asked = Asked(owner=ask.owner, response_id=handle.written(PREFIX))
                await self._keeper.put(ask.known.name, asked)
            told = await exchange.next()
        except IdTaken:
            exchange.leave()
            return None
        except Crashed:
            exchange.leave()
            return self._lost(ask, exchange, handle)
        except Refused as refused:
            exchange.leave()
            if exchange.has_sent:
                return self._lost(ask, exchange, handle)
            if refused.code is ErrorCode.SESSION_LOST and not is_new:
                return None
            self._warm.close(ask.owner, handle)
            raise
        except BaseException:
            exchange.leave()
            raise
        refusal = next((each for each in told if isinstance(each, ErrorMessage)), None)
        if refusal is not None and refusal.code is ErrorCode.SESSION_LOST and not is_new:
            exchange.leave()
            return None
        return self._talk(ask, exchange, handle, told)

    def _exchange(self, ask: Ask, handle: Handle, *, claims: bool = False) -> Exchange:
        seconds = self._heartbeat_seconds if ask.chat.streams else None
        asker = handle.asker(ask.visitor)
        make = partial(ask.message, handle.message_id)
        return Exchange(self._sessions, asker, make, ask.size, seconds, claims=claims)

    def _talk(
        self,
        ask: Ask,
        exchange: Exchange,
        handle: Handle,
        told: list[ServerMessage],
        *,
        is_first: bool = True,
    ) -> Talk:
        policy = ask.route.policy
        name = f"{PREFIX}{handle.session_id}-{handle.message_id}"
        completion = Completion(name, ask.chat.model, int(self._clock()), chat=policy.chat)
        return Talk(exchange, handle, completion, told, partial(self._keep, ask, is_first))

    def _lost(self, ask: Ask, exchange: Exchange, handle: Handle) -> Talk:
        """Return a turn whose outcome is unknown."""
        talk = self._talk(ask, exchange, handle, [])
        talk.completion.lose(NOT_KNOWN)
        return talk

    # And ends

    async def _keep(self, ask: Ask, is_first: bool, talk: Talk) -> None:
        """Keep the session for the next request if its history is known; else close it.

        Every reader of the turn keeps it, because the first may be lost with its replica. Only the
        first closes it: by the time that others have read the turn, it may have continued.
        """
        chat, completion = ask.chat, talk.completion
        failure, said = completion.failure, completion.message
        not_sent = failure is not None and failure.outcome is Outcome.NOT_INVOKED
        if not_sent:
            await self._forget(ask)
        heard = list[dict[str, Any]]()
        if said is not None and (failure is None or ask.route.policy.chat):
            heard = [*chat.messages, said]
        elif not_sent or ask.route.policy.chat:
            heard = chat.before
        is_kept = bool(heard) and await self._warm.keep(
            ask.route, ask.owner, talk.handle, ask.name(heard), ask.alias
        )
        if is_first and not is_kept:
            self._warm.close(ask.owner, talk.handle)

    async def _forget(self, ask: Ask) -> None:
        """Delete the record of a request that the model has not seen: a retry runs it again."""
        if ask.known.name is not None:
            with contextlib.suppress(Refused):
                await self._keeper.delete(ask.known.name)

    # What is answered

    async def _whole(self, talk: Talk, request: Request, ask: Ask) -> Response:
        """Return a whole completion; if the client disconnects, the turn continues."""
        over, reading = asyncio.Event(), self._sessions.spawn(talk.finish())
        reading.add_done_callback(lambda _: over.set())
        with Leaving(request, over.set):
            await over.wait()
        completion, headers = talk.completion, {**NOT_STORED, **_named(talk)}
        failure = completion.failure
        if not completion.is_over:
            failure = _moved(may_retry=ask.known.may_repeat)
        if failure is not None or completion.whole is None:
            response = answer_of(failure or NOT_KEPT)
            response.headers.update(headers)
            return response
        if completion.dropped_turns:
            headers["X-Dropped-Turns"] = str(completion.dropped_turns)
        return Response(_encode(completion.whole), 200, headers, "application/json")

    async def _stream(self, talk: Talk, request: Request, ask: Ask) -> Response:
        """Stream a completion's chunks, from the model's first output on: until then, failures are
        answered with a status, which clients know how to handle.
        """
        chunks, completion, gone = list[Json](), talk.completion, asyncio.Event()
        with Leaving(request, gone.set):
            while not completion.has_begun and not talk.is_silent:
                chunks += await talk.next()
        if gone.is_set():  # it got nothing yet: its retry waits for the same turn
            self._sessions.spawn(talk.finish())
            return answer_of(NOT_KNOWN)
        failure = completion.failure
        if failure is not None and not chunks:
            response = answer_of(failure)
            response.headers.update(_named(talk))
            return response
        most = self._sessions.routes[ask.chat.model].policy.log_bytes // 2
        relay = Relay(self._sessions, talk, _events, most)
        stream = sse.EventStream(_told(talk, relay, _events(chunks)), partial(_leave, talk, relay))
        stream.headers.update(_named(talk))
        return stream


def _leave(talk: Talk, relay: Relay) -> None:
    """Handle the end of the stream: the client has all chunks, or has disconnected."""
    relay.leave()
    if not talk.is_over:
        talk.exchange.cancel()


async def _told(talk: Talk, relay: Relay, first: list[bytes]) -> AsyncGenerator[bytes]:
    """Yield a turn's chunks: first those that it has already returned."""
    yield b"".join(first) or sse.KEEP_ALIVE
    with contextlib.suppress(Moved):
        while not (relay.is_through or relay.has_missed):
            yield b"".join(await relay.next()) or sse.KEEP_ALIVE
    failure = talk.completion.failure if talk.is_over else NOT_KNOWN
    if relay.has_missed:
        failure = TOO_SLOW
    if failure is not None:
        yield b"data: %b\n\n" % _encode({"error": error_of(failure)})
    else:
        yield DONE


def _events(chunks: list[Json]) -> list[bytes]:
    return [b"data: %b\n\n" % _encode(chunk) for chunk in chunks]


def _named(talk: Talk) -> dict[str, str]:
    """Return headers with the id by which operators find the turn in the gateway's log."""
    return {REQUEST_ID: f"req_{talk.handle.session_id}_{talk.handle.message_id}"}


def _moved(*, may_retry: bool) -> ErrorObject:
    """Error of a turn whose session has just left this replica.

    It is retryable if the retry is recognized, and then gets this turn's result.
    """
    text = "The session is moving to another gateway"
    return ErrorObject(
        code=ErrorCode.UNAVAILABLE,
        message=f"{text}; send this again." if may_retry else f"{text}.",
        retryable=may_retry,
        outcome=Outcome.NOT_INVOKED if may_retry else Outcome.UNKNOWN,
    )
