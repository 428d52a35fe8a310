"""Reads a session's log for an HTTP request, as a connection does for a WebSocket."""

import asyncio

from gateway.admission import Refused
from gateway.conversation import Conversation
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode
from gateway.protocol.messages import (
    ErrorMessage,
    Notice,
    ServerMessage,
    SessionClose,
    SessionOpened,
)
from gateway.session.events import ClientId
from gateway.session.reader import LogReader

MESSAGES_AT_ONCE = 256
"""Messages that are read before other tasks have their turn."""


class Ended(Exception):
    """The subscription has ended.

    Attributes:
        code: The code that a WebSocket would be closed with.
    """

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Listener:
    """A request that subscribes to a session; see `gateway.conversation.Traveller`.

    Args:
        resume_key: The key that the client sent, for events that contain it.
        patient: Whether ``message.accepted`` need not be delivered at once.

    Attributes:
        reader: Position in the log.
        is_open: Whether it is still subscribed.
    """

    __slots__ = (
        "_client",
        "_conversation",
        "_end",
        "_has_news",
        "_is_cut",
        "_loop",
        "_news",
        "_patient",
        "is_open",
        "reader",
    )

    def __init__(self, resume_key: str = "", *, patient: bool = False) -> None:
        self._patient = patient
        self.reader = LogReader(resume_key)
        self.is_open = True
        self._conversation: Conversation | None = None
        self._client: ClientId | None = None
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] | None = None
        self._has_news = False
        self._end: CloseCode | None = None
        self._is_cut = False

    @property
    def conversation(self) -> Conversation:
        """The session that it is subscribed to."""
        assert self._conversation is not None  # noqa: S101 - set by `begin`
        return self._conversation

    @property
    def client(self) -> ClientId:
        """Its id in the session."""
        assert self._client is not None  # noqa: S101 - set by `begin`
        return self._client

    def begin(self, conversation: Conversation, client: ClientId) -> None:
        """Store the subscription."""
        self._conversation, self._client = conversation, client
        if self.reader.is_behind:
            self._has_news = True

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        """See `gateway.conversation.Traveller`."""
        self.begin(conversation, client)
        self.reader.move(conversation.log)
        self._has_news = True

    def leave(self) -> None:
        """Unsubscribe."""
        if self.is_open:
            self.is_open = False
            if self._conversation is not None and self._client is not None:
                self._conversation.detach(self._client)

    async def next(self, seconds: float | None = None) -> list[ServerMessage]:
        """Wait for messages, and return at least one.

        Args:
            seconds: Maximum time to wait; None for no limit.

        Raises:
            Ended: There will be no more messages.
            TimeoutError: No message arrived in time.
        """
        while True:
            if self._has_news:
                messages = self._taken()
                self._has_news = len(messages) == MESSAGES_AT_ONCE
                if messages:
                    return messages
            if self._end is not None:
                raise Ended(self._end)
            await self._wait(seconds)

    async def _wait(self, seconds: float | None) -> None:
        self._news = news = self._loop.create_future()
        timer = None
        if seconds is not None:  # a plain timer is much cheaper than asyncio.timeout
            timer = self._loop.call_later(seconds, _late, news)
        try:
            await news
        finally:
            self._news = None
            if timer is not None:
                timer.cancel()

    def _taken(self) -> list[ServerMessage]:
        messages = list[ServerMessage]()
        if not self._is_cut:
            take = self.reader.take
            while len(messages) < MESSAGES_AT_ONCE and (message := take()) is not None:
                messages.append(message)
        return messages

    # Called by the session

    def wake(self, *, soon: bool) -> None:
        """See `gateway.subscribers.Subscriber`."""
        if soon or not self._patient:
            self._has_news = True
            if self._news is not None and not self._news.done():
                self._news.set_result(None)

    def flush(self) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self.wake(soon=True)

    def tell(self, notice: Notice) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self.reader.tell(notice)
        self.wake(soon=True)

    def close(self, code: CloseCode, reason: str) -> None:  # noqa: ARG002
        """See `gateway.subscribers.Subscriber`."""
        self._end = self._end or code
        self.wake(soon=True)

    def abort(self, code: CloseCode, reason: str) -> None:
        """See `gateway.subscribers.Subscriber`."""
        self._is_cut = True
        self.close(code, reason)

    def cut(self) -> None:
        """End at once: the client is gone, or no longer authenticated."""
        self.abort(CloseCode.UNAUTHENTICATED, "")


def _late(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_exception(TimeoutError())


async def until_opened(session: Conversation, listener: Listener) -> SessionOpened | ErrorMessage:
    """Wait until a session is open, or has failed to open; then unsubscribe.

    Raises:
        Refused: The session ended first, or the client disconnected. The session is then closed,
            since nobody has its key.
    """
    try:
        while True:
            for message in await listener.next():
                if isinstance(message, SessionOpened | ErrorMessage):
                    return message
    except Ended:
        session.handle(SessionClose())
        text = "The session could not be opened."
        raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS) from None
    finally:
        listener.leave()
