"""The built-in model: it needs no download, answers the same every time, and is truly stateful.

It remembers each conversation on its instance (the name, the facts and how many turns there were),
so a turn that reaches a wrong instance, is sent twice or has lost its session shows at once. It
keeps sessions in one of the dialects of real containers, their traps included.
"""

import asyncio
import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from gateway.local.containers import CLOSED_SESSION_ID, CUSTOM_ATTRIBUTES, ContainerReply
from gateway.local.stateful import (
    Conversation,
    Refused,
    StatefulContainer,
    text_reply,
    utterance,
)

HELP = """\
I remember what you tell me, on my instance and in this session only. Try:
  My name is Ada.
  Remember that the sky is green.
  What do you know?
  /sleep 2 - answer after two seconds
  /fail 500 - answer with an error
  /echo text - answer with the text
  /bytes 100 - answer with so many bytes
  /renew - give this session a new id and expiry
  /close - end this session from my side"""

_NAME = re.compile(r"\bmy name is ([\w .'-]{1,80}?)[.!]?\s*$", re.IGNORECASE)
_FACT = re.compile(r"\bremember (?:that )?(.{1,200}?)[.!]?\s*$", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
MAX_FACTS = 100
MAX_REPLY_BYTES = 30_000_000
MAX_SLEEP = 600.0


class Memory(Conversation):
    """What one session has said."""

    def __init__(self, session_id: str, expires_at: float) -> None:
        super().__init__(session_id, expires_at)
        self.turns = 0
        self.name: str | None = None
        self.facts: list[str] = []


class _Answer(Struct):
    text: str
    body: bytes | None = None
    close: bool = False
    renew: bool = False


class BuiltinModel(StatefulContainer[Memory]):
    """One instance."""

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
        if conversation is not None:
            conversation.turns += 1
        turn = conversation.turns if conversation else 0
        sent = {**opened, CUSTOM_ATTRIBUTES: f"turn={turn};instance={self.name}"}
        content_type = headers.get("content-type", "")
        is_json = "json" in content_type
        text = utterance(body) if is_json else _decoded(body, content_type)
        if text is None:
            return ContainerReply(200, {**sent, "content-type": content_type}, body)
        answer = await self._answer(text, conversation)
        if conversation is not None and answer.close:
            del self._conversations[conversation.session_id]
            sent[CLOSED_SESSION_ID] = conversation.session_id
        if conversation is not None and answer.renew:
            sent |= self._renew(conversation)
        if answer.body is not None:
            return ContainerReply(
                200, {**sent, "content-type": "application/octet-stream"}, answer.body
            )
        if not is_json:
            return text_reply(answer.text, sent)
        value = {
            "text": answer.text,
            "turn": turn,
            "instance": self.name,
            "session": conversation.session_id if conversation else None,
            "name": conversation.name if conversation else None,
            "facts": conversation.facts if conversation else [],
        }
        return ContainerReply(
            200, {**sent, "content-type": "application/json"}, msgspec.json.encode(value)
        )

    async def _answer(self, text: str, conversation: Memory | None) -> _Answer:
        command, _, rest = text.strip().partition(" ")
        amount = float(number[0]) if (number := _NUMBER.search(rest)) else 0.0
        match command:
            case "/sleep":
                await asyncio.sleep(min(amount, MAX_SLEEP))
            case "/fail":
                status = int(amount) if 400 <= amount < 600 else 500
                raise Refused(status, rest.partition(" ")[2] or "failed as asked")
            case "/echo":
                return _Answer(rest)
            case "/bytes":
                return _Answer("", body=b"x" * int(min(amount, MAX_REPLY_BYTES)))
            case "/close":
                return _Answer("I have closed this session.", close=True)
            case "/renew":
                return _Answer("This session has a new id and expiry.", renew=True)
            case _:
                pass
        if conversation is None:
            return _Answer(f"Stateless, on instance {self.name}: I remember nothing.")
        said = _listen(text, conversation)
        return _Answer(f"Turn {conversation.turns} on instance {self.name}. {said}")


def _listen(text: str, conversation: Memory) -> str:
    """Take in what the user says, and answer it."""
    if name := _NAME.search(text):
        conversation.name = name[1].strip()
        return f"Hello {conversation.name}, I will remember your name."
    if fact := _FACT.search(text):
        if len(conversation.facts) >= MAX_FACTS:
            return "I can't remember any more facts."
        conversation.facts.append(fact[1].strip())
        return f"I will remember that {conversation.facts[-1]}."
    if re.search(r"\bhelp\b", text, re.IGNORECASE):
        return HELP
    name_known = f"Your name is {conversation.name}." if conversation.name else ""
    facts = " ".join(f"You told me that {fact}." for fact in conversation.facts)
    known = f"{name_known} {facts}".strip()
    if re.search(r"\b(what|who|do you)\b", text, re.IGNORECASE):
        return known or "I know nothing about you yet."
    who = conversation.name or "stranger"
    return f"I hear you, {who}; I know {len(conversation.facts)} of your facts. Say help for more."


def _decoded(body: bytes, content_type: str) -> str | None:
    """The text of a text body; None where the body is to come back as it is."""
    if not content_type.startswith("text/"):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
