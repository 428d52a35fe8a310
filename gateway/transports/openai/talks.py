"""Requests for chat completions on their way: what each is sent as, and the turn that it is."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import structs

from gateway.admission import Refused, Visitor
from gateway.errors import ErrorCode, Outcome
from gateway.protocol.messages import (
    ErrorMessage,
    ErrorObject,
    MessageDelta,
    MessageDone,
    MessageSend,
    ServerMessage,
)
from gateway.route import Route
from gateway.session.bodies import body_of
from gateway.session.events import Words
from gateway.session.policy import Policy
from gateway.transports.exchange import AlreadyAnswered, Crashed, Exchange, Moved, principal_of
from gateway.transports.openai.again import Known
from gateway.transports.openai.chats import Chat, digest_of, newest_words, words_before
from gateway.transports.openai.completing import NOT_KEPT, NOT_KNOWN, Completion, Json
from gateway.transports.openai.composing import chat_message
from gateway.transports.openai.errors import unsupported
from gateway.transports.openai.ids import Handle


class Ask(NamedTuple):
    """A request.

    Attributes:
        chat: What it asks for.
        route: Of its model.
        visitor: Who asks.
        size: How many bytes it has.
        known: What it is known by when it is sent again.
        draft: What the model is to be sent, but for its id.
        alias: What its client calls the conversation; None where it does not.
    """

    chat: Chat
    route: Route
    visitor: Visitor
    size: int
    known: Known
    draft: MessageSend
    alias: str | None

    def __repr__(self) -> str:
        return f"<Ask of {self.size}>"

    @property
    def owner(self) -> str:
        """Whose it is."""
        return principal_of(self.visitor)

    def name(self, messages: list[dict[str, Any]]) -> str:
        """What a session is called that has heard these messages."""
        return digest_of(self.owner, self.chat.model, messages)

    def check(self) -> None:
        """See that the model can be sent it.

        Raises:
            Refused: It can't.
        """
        most = self.route.policy.message_bytes
        if len(body_of(self.draft)[0]) > most:
            raise Refused(ErrorCode.TOO_LARGE, f"The messages have more than {most} bytes.")

    def message(self, message_id: str, _route: object = None) -> MessageSend:
        """What the model is to be sent."""
        return structs.replace(self.draft, id=message_id)

    @property
    def told(self) -> tuple[Words, ...]:
        """What a new session is to be told first.

        Raises:
            Refused: Its model can't be told.
        """
        if self.route.policy.chat:
            return ()
        words = words_before(self.chat)
        if words and self.route.policy.telling is None:
            text = (
                "This route can't start from an earlier conversation: it can only continue one "
                "whose session is open, and that was not continued in another way."
            )
            raise unsupported("messages", text)
        return words


def draft_of(chat: Chat, policy: Policy) -> MessageSend:
    """What the model of a route is to be sent, but for its id.

    Raises:
        Invalid: It can't be.
    """
    if policy.chat:
        return chat_message("r", policy, chat.body, stream=chat.streams)
    return MessageSend(id="r", text=newest_words(chat), stream=chat.streams)


class Talk:
    """A turn that is under way.

    Args:
        exchange: It.
        handle: What leads to it.
        completion: What comes of it.
        told: What was told of it already.
        on_end: Awaited when it is over, before that is told.

    Attributes:
        is_silent: Whether nothing has been told of it for as long as the exchange says.
    """

    def __init__(
        self,
        exchange: Exchange,
        handle: Handle,
        completion: Completion,
        told: list[ServerMessage],
        on_end: "Callable[[Talk], Awaitable[None]]",
    ) -> None:
        self.exchange = exchange
        self.handle = handle
        self.completion = completion
        self.is_silent = False
        self._told: list[ServerMessage] | None = told
        self._on_end = on_end

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be told."""
        return self.completion.is_over

    def leave(self) -> None:
        """Listen no more."""
        self.exchange.leave()

    async def next(self) -> list[Json]:
        """The next chunks, if there are any.

        Raises:
            Moved: See `Exchange.next`.
        """
        chunks, completion = list[Json](), self.completion
        messages = await self._next()
        self.is_silent = not messages
        for message in messages:
            if isinstance(message, MessageDelta | MessageDone):
                chunks += completion.read(message)
            elif isinstance(message, ErrorMessage):
                completion.lose(_error_of(message))
        if completion.is_over:
            self.exchange.leave()
            await self._on_end(self)
        return chunks

    async def _next(self) -> list[ServerMessage]:
        told, self._told = self._told, None
        if told is not None:
            return told
        try:
            return await self.exchange.next()
        except AlreadyAnswered:
            self.completion.lose(NOT_KEPT)
        except (Crashed, Refused):
            self.completion.lose(NOT_KNOWN)
        return []

    async def finish(self) -> None:
        """Read to the end."""
        try:
            while not self.completion.is_over:
                await self.next()
        except Moved:
            pass  # the session is nobody's until it is idle for too long
        finally:
            self.exchange.leave()


def _error_of(refusal: ErrorMessage) -> ErrorObject:
    """Why a message was not accepted."""
    return ErrorObject(
        code=refusal.code,
        message=refusal.message,
        retryable=refusal.retryable,
        outcome=Outcome.NOT_INVOKED,
        retry_after=refusal.retry_after,
    )
