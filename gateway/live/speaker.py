"""Sends messages to a route's model as a session does, and waits for its replies."""

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial

from msgspec import UNSET, Raw

from gateway.errors import Failure
from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import MessageSend
from gateway.sagemaker.transport import OnEnd, result_of
from gateway.session.bodies import body_of, is_textual, request_of
from gateway.session.history import History
from gateway.session.policy import Policy
from gateway.session.ports import Call, Model, ModelError, ModelReply, ModelSession, Receipt
from gateway.session.turn_queue import Turn


class Given(Discreet, frozen=True):
    """A message that the operator has given.

    Attributes:
        text: The text on the command line; JSON if the route accepts only that.
        data: The content of a file, instead of text.
    """

    text: str = ""
    data: bytes | None = None


class Answer(Discreet, frozen=True):
    """The reply to one message.

    Attributes:
        reply: The model's reply.
        said: Its text; empty if there is none.
        parts: Number of parts; 0 if it was not streamed.
        first: Seconds until the first part.
        seconds: Seconds until the end.
    """

    reply: ModelReply
    said: str
    parts: int
    first: float
    seconds: float

    @property
    def size(self) -> str:
        """Its size, for display."""
        body, kind = self.reply.body, self.reply.content_type
        if body is not None and not is_textual(kind):
            return f"{len(body)} bytes of {kind or 'no content type'}"
        return f"{len(self.said)} characters"


class Speaker:
    """The client's side of conversations.

    Args:
        model: The model.
        policy: The route's policy.
        seconds: Maximum duration of a reply.
    """

    def __init__(self, model: Model, policy: Policy, seconds: float) -> None:
        self.seconds = seconds
        self._model = model
        self._policy = policy
        self._affinity = secrets.token_hex(16)

    def message(self, text: str, given: Given | None) -> MessageSend | None:
        """Build a message; None if the route does not accept text, and no other message is given.

        Args:
            text: The default text.
            given: The operator's message, which replaces it.
        """
        policy = self._policy
        kind = policy.content_type
        takes_text = policy.template is not None or kind is None or is_textual(kind)
        takes_text = takes_text and not policy.json_only
        if given is None:
            return MessageSend(id="1", text=text) if takes_text else None
        if given.data is not None:
            return MessageSend(id="1", data=given.data)
        if takes_text:
            return MessageSend(id="1", text=given.text)
        return MessageSend(id="1", json=Raw(given.text.encode()))

    async def send(
        self, message: MessageSend, session: ModelSession | None, history: History
    ) -> Answer:
        """Send a message and wait for its reply.

        Args:
            message: The message.
            session: The model's session.
            history: The conversation so far; this turn is added.

        Raises:
            ModelError: The call has failed.
            TimeoutError: The reply takes too long.
        """
        body, kind = body_of(message)
        request = request_of(message, self._policy, options={}, body=body, kind=kind, sha256=None)
        said = None if message.text is UNSET else message.text
        turn = Turn(number=1, id=message.id, digest=b"", said=said, request=request)
        history.compose(turn)
        parts: list[str | bytes] = []
        began, first = time.perf_counter(), 0.0

        def take(more: list[str | bytes]) -> None:
            nonlocal first
            first = first or time.perf_counter() - began
            parts.extend(more)

        async with asyncio.timeout(self.seconds):
            reply = await result_of(partial(self._start, turn, session, take))
        seconds = time.perf_counter() - began
        if reply.body is not None:
            text = _decoded(reply.body)
        else:
            text = "".join(part if isinstance(part, str) else _decoded(part) for part in parts)
        history.keep(turn, text)
        return Answer(reply, text, len(parts), first, seconds)

    def _start(
        self,
        turn: Turn,
        session: ModelSession | None,
        take: Callable[[list[str | bytes]], None],
        on_end: OnEnd[ModelReply],
    ) -> Call:
        """Send a turn; with an asynchronous endpoint, wait for its reply."""
        call = _Call()

        def ended(result: ModelReply | Failure | Receipt) -> None:
            if isinstance(result, Receipt):
                call.now = self._model.wait(result, affinity=self._affinity, on_end=ended)
            else:
                on_end(ModelError(result) if isinstance(result, Failure) else result)

        call.now = self._model.invoke(
            turn.request,
            session,
            affinity=self._affinity,
            principal="check",
            until=None,
            on_parts=take,
            on_end=ended,
        )
        return call


class _Call:
    """A call, and the wait that may follow it."""

    now: Call

    def cancel(self) -> object:
        """See `Call.cancel`."""
        return self.now.cancel()


def _decoded(body: bytes) -> str:
    return body.decode(errors="replace")
