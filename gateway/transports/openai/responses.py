"""``/openai/v1/responses``: responses over HTTP.

If a client disconnects, its turn continues, and the result is stored.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.admission import Refused, Visitor
from gateway.errors import ErrorCode, Outcome
from gateway.protocol.messages import MessageAccepted, ServerMessage
from gateway.sessions import Sessions
from gateway.transports import sse
from gateway.transports.drafts import body_of
from gateway.transports.exchange import Moved, principal_of
from gateway.transports.gate import ApiRequest
from gateway.transports.leaving import Leaving
from gateway.transports.openai.again import known_by
from gateway.transports.openai.asking import SIGN_SECONDS, Ask, Failed, unknown
from gateway.transports.openai.errors import Invalid, answer_of, not_found
from gateway.transports.openai.gate import REQUEST_ID, OpenAiGate
from gateway.transports.openai.ids import handle_of
from gateway.transports.openai.keeping import Keeper, Kept, begun, record_name
from gateway.transports.openai.output import TERMINAL, Event
from gateway.transports.openai.paging import json_response, page
from gateway.transports.openai.past import RESPONSE
from gateway.transports.openai.relay import Relay
from gateway.transports.openai.requests import CreateResponse, parse
from gateway.transports.openai.starting import Starter
from gateway.transports.openai.turns import Turn, not_yet

START_SECONDS = 1.0
"""Maximum time that a stream waits for the model's output before it starts. A turn that fails until
then, and that the model has not seen, is answered with a status, which clients know how to handle.
"""

DONE = b"data: [DONE]\n\n"
"""The end of a stream of events."""

MAX_DIGITS = 15
"""Maximum number of digits of ``starting_after``."""

_encode = msgspec.json.Encoder().encode


class Responses:
    """The handlers of responses.

    Args:
        sessions: The replica's sessions.
        gate: Wraps the handlers.
        starter: Starts responses.
        keeper: Stores responses.
        most_bytes: Maximum size of a request.
        heartbeat_seconds: Maximum silence of a stream.
    """

    def __init__(
        self,
        sessions: Sessions,
        gate: OpenAiGate,
        starter: Starter,
        keeper: Keeper,
        *,
        most_bytes: int,
        heartbeat_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._gate = gate
        self._starter = starter
        self._keeper = keeper
        self._heartbeat_seconds = heartbeat_seconds
        self._most_bytes = most_bytes

    def routes(self) -> list[BaseRoute]:
        """Return the paths' routes."""
        one = "/openai/v1/responses/{response_id}"
        return [
            self._gate.path("/openai/v1/responses", POST=self.create),
            self._gate.path(one, GET=self.retrieve, DELETE=self.delete),
            self._gate.path(f"{one}/cancel", POST=self.cancel),
            self._gate.path(f"{one}/input_items", GET=self.input_items),
        ]

    # New responses

    async def create(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Create a response."""
        body = await body_of(request, self._most_bytes)
        if wait := visitor.take(len(body)):
            text = "Rate limit exceeded; try again later."
            raise Refused(ErrorCode.RATE_LIMITED, text, wait)
        asked = parse(body, CreateResponse)
        ask = Ask(
            asked,
            visitor,
            len(body),
            known=known_by(request, visitor, body),
            seconds=START_SECONDS if asked.stream else SIGN_SECONDS,
        )
        try:
            turn = await self._starter.begin(ask)
            if isinstance(turn, Kept):
                return await self._kept(turn, visitor, streams=bool(asked.stream))
            if asked.stream:
                return await self._stream(turn)
            if asked.background:
                self._sessions.spawn(turn.finish())
                return _named(json_response(turn.response), turn)
            return await self._whole(turn, request, may_retry=ask.known.may_repeat)
        except Failed as failed:
            return answer_of(failed.error)

    async def _kept(self, kept: Kept, visitor: Visitor, *, streams: bool) -> Response:
        """Return the stored response to the request that this one retries."""
        if streams:
            return await self._replay(kept, visitor, -1)
        if kept.response.error is not None:
            raise unknown(kept.response.error.message)
        return json_response(kept.response)

    async def _whole(self, turn: Turn, request: Request, *, may_retry: bool) -> Response:
        """Wait until a response has ended; if the client disconnects, the turn continues."""
        gone, reading = asyncio.Event(), self._sessions.spawn(turn.finish())
        reading.add_done_callback(lambda _: gone.set())
        with Leaving(request, gone.set):
            await gone.wait()
        if not turn.is_over:
            text = "The response has not ended yet; it continues without this request."
            raise unknown(text, retryable=may_retry)
        if turn.failure is not None:
            raise Failed(turn.failure)
        if turn.response.error is not None:
            raise unknown(turn.response.error.message)
        response = _named(json_response(turn.response), turn)
        if turn.dropped_turns:
            response.headers["X-Dropped-Turns"] = str(turn.dropped_turns)
        return response

    async def _stream(self, turn: Turn, after: int = -1) -> Response:
        """Stream a response's events."""
        events = list[Event]()
        try:
            while not turn.is_over and (more := await turn.next()):
                events += more
                if turn.has_output:
                    break
        except (Moved, Refused):
            pass
        if turn.failure is not None and turn.failure.outcome is Outcome.NOT_INVOKED and after < 0:
            return answer_of(turn.failure)
        turn.be_silent_for(self._heartbeat_seconds)
        relay = self._relay(turn, partial(written, after=after))
        stream = sse.EventStream(_told(turn, relay, written(events, after)), relay.leave)
        return _named(stream, turn)

    def _relay(self, turn: Turn, write: Callable[[list[Event]], list[bytes]]) -> Relay:
        """Relay the rest of a turn, which is read to the end even if its client disconnects."""
        policy = self._sessions.routes[turn.response.model].policy
        return Relay(self._sessions, turn, write, policy.log_bytes // 2)

    # Existing responses

    async def _found(self, request: Request, visitor: Visitor, *, settled: bool = True) -> Kept:
        """Return the record of a request's response.

        Raises:
            Refused: It does not exist, or the client may not use it.
        """
        response_id, owner = request.path_params["response_id"], principal_of(visitor)
        kept = None
        if handle_of(response_id, RESPONSE) is not None:
            if settled:
                kept = await self._starter.settle(visitor, response_id, owner)
            else:
                kept = await self._keeper.response(response_id, owner)
        if kept is None:
            raise not_found(f"Response with id '{response_id[:200]}' not found.")
        visitor.check_route(kept.response.model)
        return kept

    async def retrieve(self, request: Request, visitor: Visitor) -> Response:
        """Return a response, or stream its events."""
        query = request.query_params
        if query.get("stream", "false").lower() not in {"true", "1"}:
            return json_response((await self._found(request, visitor)).response)
        after = query.get("starting_after", "-1")
        number = after.removeprefix("-")
        if not (number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS):
            raise Invalid("'starting_after' must be the number of an event.", "starting_after")
        kept = await self._found(request, visitor, settled=False)
        return await self._replay(kept, visitor, int(after))

    async def _replay(self, kept: Kept, visitor: Visitor, after: int) -> Response:
        """Replay a response's events from its session's log. If that has been deleted, only its
        first events and the last are sent, which contains the whole response.
        """
        watch = self._starter.watch(kept, visitor, seconds=START_SECONDS)
        told = list[ServerMessage]()
        try:
            while kept.message_id and not told:
                told = await watch.next()
        except (Moved, Refused) as error:
            watch.leave()
            if isinstance(error, Refused) and error.code is not ErrorCode.SESSION_LOST:
                raise
        if told and (isinstance(told[0], MessageAccepted) or not kept.response.is_over):
            turn = Turn(watch, kept, _keep_nothing if kept.response.is_over else self._starter.keep)
            turn.begin_with(told)
            if not isinstance(told[0], MessageAccepted):  # its events would be numbered wrongly
                turn.be_silent_for(self._heartbeat_seconds)
                relay = self._relay(turn, _nothing_of)
                late = self._late(turn, relay, visitor, after)
                return sse.EventStream(late, relay.leave)
            return await self._stream(turn, after)
        watch.leave()
        if not kept.response.is_over:
            found = await self._starter.settle(visitor, kept.response.id, kept.owner)
            kept = found or kept
        if not kept.response.is_over:
            raise not_yet()
        return sse.EventStream(_end_of(kept, after), _nothing)

    async def _late(
        self, turn: Turn, relay: Relay, visitor: Visitor, after: int
    ) -> AsyncGenerator[bytes]:
        """Wait until a running response ends, and yield its first events and the last: the log
        lacks the start of its turn.
        """
        try:
            while not relay.is_through:
                await relay.next()
                yield sse.KEEP_ALIVE
            kept = turn.kept
            found = await self._starter.settle(visitor, kept.response.id, kept.owner)
        except (Moved, Refused):
            return  # without `DONE`, as in `_told`
        async for said in _end_of(found or kept, after):
            yield said

    async def cancel(self, request: Request, visitor: Visitor) -> Response:
        """Cancel a response."""
        kept = await self._found(request, visitor)
        if kept.response.is_over:
            return json_response(kept.response)
        watch = self._starter.watch(kept, visitor, cancels=True)
        turn = Turn(watch, kept, self._starter.keep)
        reading = self._sessions.spawn(turn.finish())
        await asyncio.wait([reading])
        if not turn.is_over:
            raise not_yet()
        return json_response(turn.response)

    async def delete(self, request: Request, visitor: Visitor) -> Response:
        """Delete a response, and cancel it if it is running."""
        kept = await self._found(request, visitor)
        if not kept.response.is_over:
            watch = self._starter.watch(kept, visitor, cancels=True)
            turn = Turn(watch, kept, _keep_nothing)
            await turn.finish()
            if not turn.is_over:
                raise not_yet()
        await self._keeper.delete(record_name("response", kept.response.id))
        return json_response({"id": kept.response.id, "object": "response", "deleted": True})

    async def input_items(self, request: Request, visitor: Visitor) -> Response:
        """List the items of a response's input."""
        kept = await self._found(request, visitor, settled=False)
        return json_response(page(kept.input, request.query_params))


def _named(response: Response, turn: Turn) -> Response:
    """Add the id by which operators find the turn in the gateway's log."""
    handle = handle_of(turn.kept.response.id, RESPONSE)
    if handle is not None:
        response.headers[REQUEST_ID] = f"req_{handle.session_id}_{handle.message_id}"
    return response


async def _keep_nothing(_kept: Kept) -> None:
    pass


def _nothing() -> None:
    pass


def _nothing_of(_events: list[Event]) -> list[bytes]:
    return []


async def _told(turn: Turn, relay: Relay, first: list[bytes]) -> AsyncGenerator[bytes]:
    """Yield a turn's events: first those that it has already returned."""
    yield b"".join(first) or sse.KEEP_ALIVE
    try:
        while not relay.is_through:
            yield b"".join(await relay.next()) or sse.KEEP_ALIVE
    except (Moved, Refused):
        pass
    if turn.is_over:  # else the client can resume the stream at another replica
        yield DONE


async def _end_of(kept: Kept, after: int) -> AsyncGenerator[bytes]:
    """Yield a response's first events and the last, which don't need the log."""
    response, first = kept.response, begun(kept.response)
    last = max(kept.count - 1, 2)
    events: list[Event] = [
        {"type": "response.created", "response": first, "sequence_number": 0},
        {"type": "response.in_progress", "response": first, "sequence_number": 1},
        {"type": TERMINAL[response.status], "response": response, "sequence_number": last},
    ]
    yield b"".join(written(events, after))
    yield DONE


def written(events: list[Event], after: int = -1) -> list[bytes]:
    """Encode the events after a number for a stream."""
    return [
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))
        for event in events
        if event["sequence_number"] > after
    ]
