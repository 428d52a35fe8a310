"""A request that reads a session's log, as a WebSocket does: until it has its answer."""

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
"""How many messages are taken before it is others' turn."""


class Ended(Exception):
    """Nothing more is told.

    Attributes:
        code: What a WebSocket would be closed with.
    """

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Listener:
    """See `gateway.conversation.Traveller`.

    Args:
        resume_key: What the client has shown, for the events that say it.
        patient: Whether it need not be told at once that its message was accepted.

    Attributes:
        reader: Its place in the log.
        is_open: Whether the request is still there.
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
        """What it listens to."""
        assert self._conversation is not None  # noqa: S101 - it has been let in
        return self._conversation

    @property
    def client(self) -> ClientId:
        """What the session knows it as."""
        assert self._client is not None  # noqa: S101 - the same
        return self._client

    def begin(self, conversation: Conversation, client: ClientId) -> None:
        """It has been let in."""
        self._conversation, self._client = conversation, client
        if self.reader.is_behind:
            self._has_news = True

    def go_on(self, conversation: Conversation, client: ClientId) -> None:
        """See `gateway.conversation.Traveller`."""
        self.begin(conversation, client)
        self.reader.move(conversation.log)
        self._has_news = True

    def leave(self) -> None:
        """Listen no more."""
        if self.is_open:
            self.is_open = False
            if self._conversation is not None and self._client is not None:
                self._conversation.detach(self._client)

    async def next(self, seconds: float | None = None) -> list[ServerMessage]:
        """What is told next: one message at least.

        Args:
            seconds: How long that may take; None for as long as it does.

        Raises:
            Ended: There is nothing more.
            TimeoutError: There was nothing for so long.
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
        if seconds is not None:  # a timer of its own is much less than asyncio.timeout
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

    # What the session asks for

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
        """Who listens may not any more."""
        self.abort(CloseCode.UNAUTHENTICATED, "")


def _late(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_exception(TimeoutError())


async def until_opened(session: Conversation, listener: Listener) -> SessionOpened | ErrorMessage:
    """What comes of the opening of a session, or why it is not opened; the listener leaves then.

    Raises:
        Refused: The session has ended before, or the client does not wait for it: it is closed,
            since nobody knows its key.
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
