"""A real language model, small enough for any machine, with either of the usual ways to serve it.

One remembers: a session's conversation exists only in its instance's memory. The other forgets, as
vLLM, LMI and TGI do: each request has the whole conversation in OpenAI's ``messages``, and its
session only selects the instance with the warm cache. Either way a session has a slot of llama.cpp,
whose KV cache holds the conversation so far, so that a turn evaluates only what is new. When there
are as many sessions as slots, a model that remembers accepts no more, and one that forgets lets
sessions share slots.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from gateway.local.containers import CUSTOM_ATTRIBUTES, ContainerReply
from gateway.local.llama import CONTEXT_TOKENS, MAX_TOKENS, NO_SESSION, SLOTS, Llama
from gateway.local.shapes import Lines, Lmi, Pieces, Stumbled, shape_of
from gateway.local.stateful import (
    Conversation,
    Message,
    Refused,
    StatefulContainer,
    chat_of,
    json_of,
    utterance,
)

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TOKEN_CHARACTERS = 3
"""A token is about four characters of English; fewer are assumed, so that the prompt fits."""
MESSAGE_TOKENS = 6
"""Overhead of a message."""
SESSIONS = 1000
"""Maximum of an instance that forgets; sessions that share a slot evaluate more of the prompt."""


class Context(Conversation):
    """A session's slot, and the turns in its KV cache, oldest first."""

    def __init__(self, session_id: str, expires_at: float, slot: int) -> None:
        super().__init__(session_id, expires_at)
        self.slot = slot
        self.turns = 0
        self.exchanges: list[str] = []


class LanguageModel(StatefulContainer[Context]):
    """An instance of the language model.

    Args:
        llama: Its llama.cpp; instances that share one have different slots.
        name: Shown to clients in ``CustomAttributes``.
        slots: Slots for its sessions.
        forgets: Whether each request must contain the conversation.
    """

    def __init__(
        self,
        llama: Llama,
        name: str,
        *,
        slots: Sequence[int] = range(SLOTS),
        forgets: bool = False,
    ) -> None:
        super().__init__(name, max_sessions=SESSIONS if forgets else len(slots), forgets=forgets)
        self._llama = llama
        self._slots = slots

    def new_conversation(self, session_id: str, expires_at: float) -> Context:
        """See `StatefulContainer.new_conversation`."""
        taken = Counter(context.slot for context in self._conversations.values())
        slot = min(self._slots, key=taken.__getitem__)
        return Context(session_id, expires_at, slot)

    async def turn(
        self,
        headers: Mapping[str, str],
        body: bytes,
        conversation: Context | None,
        opened: Mapping[str, str],
    ) -> ContainerReply:
        """See `StatefulContainer.turn`."""
        await self._llama.load()
        context = conversation or Context("", 0.0, slot=NO_SESSION)
        if self._forgets:
            messages = chat_of(headers, body)
            turn = sum(message.role == "user" for message in messages)
            pieces = _trimmed(self._llama.complete(_rendered(messages), context.slot))
        else:
            is_json = "json" in headers.get("content-type", "")
            text = utterance(body) if is_json else body.decode(errors="replace")
            context.turns += 1
            turn = context.turns
            pieces = self._answer(text, context)
        shape = shape_of(headers, json_of(body))
        if type(shape) is Lines:
            shape = Lmi(streamed=shape.streamed)
        sent = {**opened, CUSTOM_ATTRIBUTES: f"turn={turn};instance={self.name}"}
        if shape.streamed:
            return ContainerReply(
                200, {**sent, "content-type": shape.stream_type}, shape.parts(pieces)
            )
        try:
            async with aclosing(pieces):
                said = "".join([piece async for piece in pieces])
        except Stumbled as stumbled:
            raise Refused(500, str(stumbled)) from None
        return ContainerReply(
            200, {**sent, "content-type": shape.content_type}, shape.one(said, {})
        )

    async def close(self) -> None:
        """See `Container.close`."""
        await self._llama.close()
        await super().close()

    async def _answer(self, text: str, context: Context) -> Pieces:
        """Generate a reply and remember it.

        If the caller stops early, the part generated so far stays in the context.

        Raises:
            Stumbled: llama.cpp fails.
        """
        asked = f"{_framed('user', _limited(text))}<|im_start|>assistant\n"
        said = ""
        pieces = _trimmed(self._llama.complete(_prompt(context, asked), context.slot))
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    said += piece
                    yield piece
        finally:
            if said:
                context.exchanges.append(f"{asked}{said}<|im_end|>\n")


async def _trimmed(pieces: Pieces) -> Pieces:
    """Strip leading and trailing white space.

    Raises:
        Stumbled: llama.cpp fails.
    """
    begun = False
    held = ""
    async with aclosing(pieces):
        async for piece in pieces:
            grown = held + piece if begun else piece.lstrip()
            new = grown.rstrip()
            held = grown[len(new) :]
            if new:
                begun = True
                yield new


def _prompt(context: Context, said: str) -> str:
    """Build the prompt; the oldest turns are dropped when it becomes too long."""
    system = _framed("system", SYSTEM)
    room = TOKEN_CHARACTERS * (CONTEXT_TOKENS - MAX_TOKENS) - len(system) - len(said)
    while sum(map(len, context.exchanges)) > room:
        context.exchanges.pop(0)
    return system + "".join(context.exchanges) + said


def _rendered(messages: Sequence[Message]) -> str:
    """Build the prompt with SmolLM2's own chat template.

    Raises:
        Refused: It is too long; models of this kind drop nothing on their own.
    """
    if messages[0].role != "system":
        messages = [Message("system", SYSTEM), *messages]
    tokens = sum(len(each.content) // TOKEN_CHARACTERS + MESSAGE_TOKENS for each in messages)
    if tokens > CONTEXT_TOKENS - MAX_TOKENS:
        raise Refused(
            400,
            f"This model's maximum context length is {CONTEXT_TOKENS} tokens, {MAX_TOKENS} of them "
            f"for the answer. The messages have about {tokens}.",
        )
    framed = (_framed(message.role, message.content) for message in messages)
    return "".join(framed) + "<|im_start|>assistant\n"


def _framed(role: str, text: str) -> str:
    """Format a message, without any markup inside it that would end it."""
    plain = text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    return f"<|im_start|>{role}\n{plain}<|im_end|>\n"


def _limited(text: str) -> str:
    """Truncate a user's text to half of the context."""
    return text[: TOKEN_CHARACTERS * CONTEXT_TOKENS // 2]
