"""The built-in model: needs no download, is deterministic, and really stateful.

It remembers each conversation on its instance (the user's name, facts and the number of turns), so
a turn that reaches the wrong instance, is sent twice or has lost its session shows at once. It
keeps sessions in one of the dialects of real containers, with their pitfalls, and replies in the
format of the request (see `shapes`), one word per part. A turn is counted when it begins.

A model that forgets knows only a request's ``messages``, and counts those.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gateway.local.containers import CLOSED_SESSION_ID, CUSTOM_ATTRIBUTES, ContainerReply
from gateway.local.shapes import Pieces, Stumbled, shape_of
from gateway.local.stateful import (
    Conversation,
    Message,
    Refused,
    StatefulContainer,
    chat_of,
    json_of,
    utterance,
)

HELP = """\
I remember what you tell me, on my instance and in this session only. Try:
  My name is Ada.
  Remember that the sky is green.
  What do you know?
In JSON, "messages", "inputs" or "text", with "stream": true for parts. And, for tests:
  /sleep 2 - answer after two seconds
  /fail 500 - answer with an error
  /echo text - answer with the text
  /bytes 100 - answer with so many bytes
  /count 10 20 - count to 10, with 20 milliseconds between the words
  /break 3 - fail after three words
  /renew - give this session a new id and expiry
  /close - end this session from my side"""

_NAME = re.compile(r"\bmy name is ([\w .'-]{1,80}?)[.!]?\s*$", re.IGNORECASE)
_FACT = re.compile(r"\bremember (?:that )?(.{1,200}?)[.!]?\s*$", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORD = re.compile(r"\s*\S+\s*")
MAX_FACTS = 100
MAX_REPLY_BYTES = 30_000_000
MAX_SLEEP = 600.0
MAX_COUNT = 100_000
COUNT_PAUSE = 20.0
"""Default for the milliseconds between the words of ``/count``."""


class Memory(Conversation):
    """What the model remembers of a session."""

    def __init__(self, session_id: str, expires_at: float) -> None:
        super().__init__(session_id, expires_at)
        self.turns = 0
        self.name: str | None = None
        self.facts: list[str] = []


class _Answer(Struct):
    """A reply's words, and what happens to the session.

    Attributes:
        pause: Seconds between the words.
        stumbles: Whether the model fails after them.
        body: Bytes instead of words.
    """

    words: Iterable[str] = ()
    pause: float = 0.0
    stumbles: bool = False
    body: bytes | None = None
    close: bool = False
    renew: bool = False


class BuiltinModel(StatefulContainer[Memory]):
    """An instance of the built-in model."""

    def new_conversation(self, session_id: str, expires_at: float) -> Memory:
        """See `StatefulContainer.new_conversation`."""
        return Memory(session_id, expires_at)

    async def turn(
        self,
        headers: Mapping[str, str],
        body: bytes,
        conversation: Memory | None,
        opened: Mapping[str, str],
    ) -> ContainerReply:
        """See `StatefulContainer.turn`."""
        if self._forgets:
            memory: Memory | None = _told(chat_of(headers, body))
        else:
            memory = conversation
        if memory is not None:
            memory.turns += 1
        turn = memory.turns if memory else 0
        sent = {**opened, CUSTOM_ATTRIBUTES: f"turn={turn};instance={self.name}"}
        content_type = headers.get("content-type", "")
        shape = shape_of(headers, json_of(body))
        text = utterance(body) if "json" in content_type else _decoded(body, content_type)
        if text is None:
            return ContainerReply(200, {**sent, "content-type": content_type}, body)
        answer = await self._answer(text, memory)
        if conversation is not None and answer.close:
            del self._conversations[conversation.session_id]
            sent[CLOSED_SESSION_ID] = conversation.session_id
        if conversation is not None and answer.renew:
            sent |= self._renew(conversation)
        if answer.body is not None:
            return ContainerReply(
                200, {**sent, "content-type": "application/octet-stream"}, answer.body
            )
        pieces = _pieces(answer)
        if shape.streamed:
            return ContainerReply(
                200, {**sent, "content-type": shape.stream_type}, shape.parts(pieces)
            )
        try:
            said = "".join([piece async for piece in pieces])
        except Stumbled as stumbled:
            raise Refused(500, str(stumbled)) from None
        details = {
            "turn": turn,
            "instance": self.name,
            "session": conversation.session_id if conversation else None,
            "name": memory.name if memory else None,
            "facts": memory.facts if memory else [],
        }
        return ContainerReply(
            200, {**sent, "content-type": shape.content_type}, shape.one(said, details)
        )

    async def _answer(self, text: str, memory: Memory | None) -> _Answer:
        command, _, rest = text.strip().partition(" ")
        numbers = [float(number) for number in _NUMBER.findall(rest)]
        if command == "/sleep":
            await asyncio.sleep(min(numbers[0], MAX_SLEEP) if numbers else 0)
        answer = _commanded(command, rest, numbers)
        if answer is not None:
            return answer
        if memory is None:
            return _Answer(_words(f"Stateless, on instance {self.name}: I remember nothing."))
        said = _listen(text, memory)
        return _Answer(_words(f"Turn {memory.turns} on instance {self.name}. {said}"))


def _told(messages: Sequence[Message]) -> Memory:
    """Build a memory from a request's messages, except for the newest."""
    memory = Memory("", 0.0)
    for message in messages[:-1]:
        if message.role == "user":
            memory.turns += 1
            if not message.content.startswith("/"):
                _listen(message.content, memory)
    return memory


def _commanded(command: str, rest: str, numbers: Sequence[float]) -> _Answer | None:
    """Run a command that determines the reply; returns None if the text is not such a command.

    Raises:
        Refused: The command asks for a failure.
    """
    amount = int(min(numbers[0], 1e9)) if numbers else 0
    match command:
        case "/fail":
            status = amount if 400 <= amount < 600 else 500
            raise Refused(status, rest.partition(" ")[2] or "failed as asked")
        case "/echo":
            return _Answer(_words(rest))
        case "/bytes":
            return _Answer(body=b"x" * min(amount, MAX_REPLY_BYTES))
        case "/count":
            pause = numbers[1] if len(numbers) > 1 else COUNT_PAUSE
            return _Answer(_counted(amount), pause=min(pause / 1000, MAX_SLEEP))
        case "/break":
            return _Answer(_counted(amount), stumbles=True)
        case "/close" | "/renew":
            close = command == "/close"
            text = (
                "I have closed this session." if close else "This session has a new id and expiry."
            )
            return _Answer(_words(text), close=close, renew=not close)
        case _:
            return None


async def _pieces(answer: _Answer) -> Pieces:
    """Yield the words, with pauses.

    Raises:
        Stumbled: The model fails.
    """
    for number, word in enumerate(answer.words):
        if number:
            await asyncio.sleep(answer.pause)
        yield word
    if answer.stumbles:
        raise Stumbled("failed as asked")


def _words(text: str) -> Iterable[str]:
    """Split text into words with their surrounding white space, which concatenate to the text."""
    return _WORD.findall(text) or [text]


def _counted(amount: int) -> Iterable[str]:
    """ "1 2 3 …"."""
    last = min(amount, MAX_COUNT)
    return (f"{number} " if number < last else f"{number}" for number in range(1, last + 1))


def _listen(text: str, memory: Memory) -> str:
    """Remember what the user says, and return the answer."""
    if name := _NAME.search(text):
        memory.name = name[1].strip()
        return f"Hello {memory.name}, I will remember your name."
    if fact := _FACT.search(text):
        if len(memory.facts) >= MAX_FACTS:
            return "I can't remember any more facts."
        memory.facts.append(fact[1].strip())
        return f"I will remember that {memory.facts[-1]}."
    if re.search(r"\bhelp\b", text, re.IGNORECASE):
        return HELP
    name_known = f"Your name is {memory.name}." if memory.name else ""
    facts = " ".join(f"You told me that {fact}." for fact in memory.facts)
    known = f"{name_known} {facts}".strip()
    if re.search(r"\b(what|who|do you)\b", text, re.IGNORECASE):
        return known or "I know nothing about you yet."
    who = memory.name or "stranger"
    return f"I hear you, {who}; I know {len(memory.facts)} of your facts. Say help for more."


def _decoded(body: bytes, content_type: str) -> str | None:
    """Decode a text body; None if the body is to be echoed unchanged."""
    if not content_type.startswith("text/"):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
