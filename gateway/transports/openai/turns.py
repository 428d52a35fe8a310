"""Running responses: reads their sessions' logs as events, and stores their results."""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from msgspec import structs

from gateway.admission import Refused
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode
from gateway.protocol.messages import (
    ErrorMessage,
    ErrorObject,
    MessageAccepted,
    MessageCancel,
    MessageDelta,
    MessageDone,
    ServerMessage,
)
from gateway.sessions import Sessions
from gateway.transports.exchange import AlreadyAnswered, Asker, Crashed, Moved, gone, join
from gateway.transports.listener import Ended, Listener
from gateway.transports.openai.keeping import Kept, begun
from gateway.transports.openai.output import Event
from gateway.transports.openai.reading import LOST, UNKNOWN, Reading
from gateway.transports.openai.resource import Response

log = structlog.stdlib.get_logger("gateway.openai")

OnEnd = Callable[[Kept], Awaitable[None]]
"""Stores a response that has ended."""


class Source(Protocol):
    """Reads the messages of one turn: an `Exchange` or a `Watch`."""

    seconds: float | None

    async def next(self) -> list[ServerMessage]:
        """See `Exchange.next`."""
        ...

    def leave(self) -> None:
        """See `Exchange.leave`."""
        ...


class Turn:
    """Reads a turn until it ends, and stores the response.

    Args:
        source: Reads the turn's messages.
        kept: Record of the response, as accepted.
        on_end: Stores the response when it has ended.
        told: Messages that were read from the source already.

    Attributes:
        kept: Record of the response.
        is_over: Whether the turn has ended, and the response has been stored.
    """

    def __init__(
        self,
        source: Source,
        kept: Kept,
        on_end: OnEnd,
        told: list[ServerMessage] | None = None,
    ) -> None:
        self.kept = kept
        self._source = source
        self._told = told
        self._on_end = on_end
        self._reading = Reading(begun(kept.response), chat=kept.chat)
        self.is_over = False

    def _now(self) -> float:
        """Time of completion, so that replays are the same; the current time if it is running."""
        return self.kept.response.completed_at or time.time()

    @property
    def response(self) -> Response:
        """The response as it is now."""
        return self._reading.response

    @property
    def failure(self) -> ErrorObject | None:
        """Error of the turn, if it has failed."""
        return self._reading.failure

    async def next(self) -> list[Event]:
        """Wait for the next events; an empty list is a heartbeat.

        Raises:
            Moved: The session is at another replica, where its log can be read.
            Refused: The session is temporarily unavailable.
        """
        reading = self._reading
        if not reading.is_over:
            await self._read()
        events = reading.take()
        if reading.is_over and not self.is_over:
            failure = reading.failure
            self.kept = structs.replace(
                self.kept,
                response=reading.response,
                count=reading.count,
                outcome=None if failure is None else failure.outcome,
            )
            await self._keep()
        return events

    async def _read(self) -> None:
        if self._told is not None:
            messages, self._told = self._told, None
        else:
            messages = await self._listen()
        for message in messages:
            if isinstance(message, MessageDelta | MessageDone):
                self._reading.read(message, self._now())
            elif isinstance(message, ErrorMessage):
                self._reading.lose(UNKNOWN, self._now())

    async def _listen(self) -> list[ServerMessage]:
        try:
            return await self._source.next()
        except AlreadyAnswered:
            self._reading.lose(LOST, self._now())
        except Crashed:
            self._reading.lose(UNKNOWN, self._now())
        except Refused as refused:
            if refused.code is not ErrorCode.SESSION_LOST:
                raise
            self._reading.lose(UNKNOWN, self._now())
        return []

    async def _keep(self) -> None:
        try:
            await self._on_end(self.kept)
        except Refused:
            # The client gets it. Until the log is deleted, others can read it from there.
            log.warning("a response could not be kept", route=self.kept.response.model)
        self.is_over = True
        self.leave()

    @property
    def dropped_turns(self) -> int:
        """Number of the oldest turns that were left out of the model's input."""
        return self._reading.dropped_turns

    @property
    def has_output(self) -> bool:
        """Whether the reply has started."""
        return self._reading.has_output

    def begin_with(self, told: list[ServerMessage]) -> None:
        """Set messages that were read from the source already."""
        self._told = told

    def be_silent_for(self, seconds: float) -> None:
        """Set the interval of heartbeats, in seconds."""
        self._source.seconds = seconds

    async def finish(self) -> None:
        """Read the turn to its end, so that the response is stored."""
        try:
            while not self.is_over:
                await self.next()
        except (Moved, Refused):
            pass  # a request that retrieves the response reads its log
        finally:
            self.leave()

    def leave(self) -> None:
        """Listen no more."""
        self._source.leave()


def not_yet() -> Refused:
    """Error of a response whose result is temporarily unavailable."""
    text = "The response's session can't be reached at the moment; try again."
    return Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)


class Watch:
    """Reads one turn in a session's log, without sending a message.

    Args:
        sessions: The replica's sessions.
        asker: Credentials for the session.
        message_id: Id of the turn's message.
        after: Number of the session's event before the turn's first.
        seconds: Interval of heartbeats; None for no heartbeats.
        cancels: Whether to cancel the turn.
        only_now: Whether to read only what is in the log already, without waiting for more.
        is_young: Whether the session may be so new that it is not in the store yet.

    Attributes:
        seconds: The argument; may be changed.
        is_through: Whether everything has been read that was in the log at first; only set for
            `only_now`.
    """

    def __init__(
        self,
        sessions: Sessions,
        asker: Asker,
        message_id: str,
        after: int,
        *,
        seconds: float | None = None,
        cancels: bool = False,
        only_now: bool = False,
        is_young: bool = False,
    ) -> None:
        self._sessions = sessions
        self._asker = asker
        self._id = message_id
        self._position = after
        self.seconds = seconds
        self._cancels = cancels
        self._is_young = is_young
        self._fence = secrets.token_hex(16) if only_now else ""
        self.is_through = False
        self._listener: Listener | None = None

    async def next(self) -> list[ServerMessage]:
        """See `Exchange.next`.

        Raises:
            Moved: See `Exchange.next`.
            Refused: The session is gone, or temporarily unavailable.
        """
        while not self.is_through:
            listener = self._listener or await self._join()
            try:
                told = self._ours(await listener.next(self.seconds))
            except TimeoutError:
                return []
            except Ended as ended:
                self._position = listener.reader.position
                self.leave()
                self._listener = None
                if ended.code not in {CloseCode.RESTARTING, CloseCode.TOO_SLOW}:
                    raise gone() from None
                if self._sessions.draining:
                    raise Moved from None
            else:
                if told:
                    return told
        return []

    async def _join(self) -> Listener:
        listener = Listener(patient=self.seconds is None and not self._fence)
        try:
            await join(self._sessions, self._asker, self._position, listener)
        except Refused as refused:
            if refused.code is not ErrorCode.SESSION_LOST or not self._is_young:
                raise
            raise not_yet() from None
        self._is_young = False
        self._listener = listener
        if self._cancels:  # again if the session has moved
            listener.conversation.handle(MessageCancel(id=self._id), listener.client)
        if self._fence:
            # The error that there is no such message arrives after everything that is in the log
            # now, even if the session is at another replica.
            listener.conversation.handle(MessageCancel(id=self._fence), listener.client)
        return listener

    def _ours(self, messages: list[ServerMessage]) -> list[ServerMessage]:
        ours = list[ServerMessage]()
        for message in messages:
            if isinstance(message, MessageDelta | MessageDone | MessageAccepted):
                if message.id == self._id:
                    ours.append(message)
            elif isinstance(message, ErrorMessage) and message.id == self._fence:
                self.is_through = True
        return ours

    def leave(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.leave()
