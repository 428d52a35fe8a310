"""A response that is under way: its session's log as events, and what becomes of it as a record."""

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
"""Keeps a response that is over."""


class Source(Protocol):
    """What tells of one turn: an `Exchange`, or a `Watch`."""

    seconds: float | None

    async def next(self) -> list[ServerMessage]:
        """See `Exchange.next`."""
        ...

    def leave(self) -> None:
        """See `Exchange.leave`."""
        ...


class Turn:
    """Reads a turn until it is over, and has what became of it kept.

    Args:
        source: Tells of it.
        kept: The response, as it was accepted.
        on_end: Is given it when it is over.
        told: What the source has told of it already.

    Attributes:
        kept: The response, as it is kept.
        is_over: Whether nothing more will be told, and that is kept.
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
        """The time, or when it was completed, if it is: it is told the same way again."""
        return self.kept.response.completed_at or time.time()

    @property
    def response(self) -> Response:
        """The response as it stands."""
        return self._reading.response

    @property
    def failure(self) -> ErrorObject | None:
        """Why its turn has failed, where it has."""
        return self._reading.failure

    async def next(self) -> list[Event]:
        """The next events. None is a sign of life.

        Raises:
            Moved: The session is elsewhere, where its log can be read on.
            Refused: It can't be had at the moment.
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
            # Its client has it; who asks later is told what the log says, while that is kept.
            log.warning("a response could not be kept", route=self.kept.response.model)
        self.is_over = True
        self.leave()

    @property
    def dropped_turns(self) -> int:
        """How many of the oldest turns the model was not told of."""
        return self._reading.dropped_turns

    @property
    def has_output(self) -> bool:
        """Whether the model has answered something."""
        return self._reading.has_output

    def begin_with(self, told: list[ServerMessage]) -> None:
        """The source has told this already."""
        self._told = told

    def be_silent_for(self, seconds: float) -> None:
        """How long there may be nothing to tell from now on."""
        self._source.seconds = seconds

    async def finish(self) -> None:
        """Read to the end, for nobody but whoever asks later."""
        try:
            while not self.is_over:
                await self.next()
        except (Moved, Refused):
            pass  # its log is read there by whoever asks
        finally:
            self.leave()

    def leave(self) -> None:
        """Listen no more."""
        self._source.leave()


def not_yet() -> Refused:
    """What has become of a response can't be found out at the moment."""
    text = "The response's session can't be reached at the moment; try again."
    return Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)


class Watch:
    """Reads what a session's log says of one turn, and sends nothing.

    Args:
        sessions: Those that are here.
        asker: Who asks.
        message_id: What the session knows the turn as.
        after: The event before its first.
        seconds: How long there may be nothing to tell; None for as long as it takes.
        cancels: Whether the turn is to be stopped.
        only_now: Whether nothing is waited for that is not there yet.
        is_young: Whether its session may be so new that it is not in the store yet.

    Attributes:
        seconds: As given; it may be changed.
        is_through: Whether all has been read that was there when this began, where that is enough.
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
            Refused: The session is gone, or can't be had at the moment.
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
        if self._cancels:  # again, where the session has moved meanwhile
            listener.conversation.handle(MessageCancel(id=self._id), listener.client)
        if self._fence:
            # That there is no such message is told after all that is in the log by now, also where
            # the session is elsewhere.
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
