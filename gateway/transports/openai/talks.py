"""Requests for chat completions as sent to sessions, and their turns."""

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
    """A request for a chat completion.

    Attributes:
        chat: The parsed body.
        route: Route of its model.
        visitor: The client.
        size: Number of bytes.
        known: Identity of the request, by which retries are recognized.
        draft: The message for the session, whose id is yet to be set.
        alias: Digest of the client's name for the conversation; None if there is none.
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
        """Principal of the client."""
        return principal_of(self.visitor)

    def name(self, messages: list[dict[str, Any]]) -> str:
        """Return the name under which a session with these messages as its history is kept."""
        return digest_of(self.owner, self.chat.model, messages)

    def check(self) -> None:
        """Check the size of the model's input.

        Raises:
            Refused: It is too large.
        """
        most = self.route.policy.message_bytes
        if len(body_of(self.draft)[0]) > most:
            raise Refused(ErrorCode.TOO_LARGE, f"The messages have more than {most} bytes.")

    def message(self, message_id: str, _route: object = None) -> MessageSend:
        """Return the message for the session."""
        return structs.replace(self.draft, id=message_id)

    @property
    def told(self) -> tuple[Words, ...]:
        """The history that a new session starts with.

        Raises:
            Refused: The route can't start a session with a history.
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
    """Return the message for a session of a route, whose id is yet to be set.

    Raises:
        Invalid: The request can't be converted to the model's input.
    """
    if policy.chat:
        return chat_message("r", policy, chat.body, stream=chat.streams)
    return MessageSend(id="r", text=newest_words(chat), stream=chat.streams)


class Talk:
    """The turn of a chat completion.

    Args:
        exchange: Reads the turn's messages.
        handle: Handle of the turn.
        completion: Converts the messages.
        told: Messages that were read already.
        on_end: Awaited when the turn has ended, before its last chunks are returned.

    Attributes:
        is_silent: Whether the last call of `next` was a heartbeat.
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
        """Whether the turn has ended."""
        return self.completion.is_over

    def leave(self) -> None:
        """Stop listening."""
        self.exchange.leave()

    async def next(self) -> list[Json]:
        """Wait for the next chunks; there may be none.

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
            pass  # the session is not kept, and ends by its idle timeout
        finally:
            self.exchange.leave()


def _error_of(refusal: ErrorMessage) -> ErrorObject:
    """Return the error of a message that was not accepted."""
    return ErrorObject(
        code=refusal.code,
        message=refusal.message,
        retryable=refusal.retryable,
        outcome=Outcome.NOT_INVOKED,
        retry_after=refusal.retry_after,
    )
