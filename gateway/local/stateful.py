"""Containers with sessions, in the dialects of real ones, including their pitfalls.

The dialects are those of ``model-hosting-container-standards`` (vLLM, and almost the same in LMI),
of AWS's stateful sample for TorchServe, and of containers whose first message opens the session. A
stateless container treats a request to open a session as any other, and answers it.
"""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from cachetools import LRUCache

from gateway.local.containers import (
    CLOSED_SESSION_ID,
    NEW_SESSION_ID,
    SESSION_ID,
    ContainerReply,
)

Dialect = Literal["container-standards", "torchserve", "first-message", "stateless"]
Expires = Literal["standard", "absent", "naive"]

NEW_SESSION = "NEW_SESSION"
COUNTED_SESSIONS = 100_000
"""Number of sessions whose turns are counted; the least recently used are forgotten."""


class Refused(Exception):
    """The container responds with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Conversation:
    """A container's state of one session."""

    def __init__(self, session_id: str, expires_at: float) -> None:
        self.session_id = session_id
        self.expires_at = expires_at


C = TypeVar("C", bound=Conversation)


class StatefulContainer(ABC, Generic[C]):
    """An instance of a container with sessions.

    Args:
        name: Shown in replies.
        dialect: How sessions are opened, carried and closed.
        session_seconds: Lifetime of a session; the containers' default is 1200.
        max_sessions: Maximum number of sessions.
        expires: Format of the expiry; clients must support all of these.
        forgets: Whether sessions exist without their conversation, as in most containers of
            language
            models: each request has the conversation in OpenAI's ``messages``.
        clock: Returns seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        *,
        dialect: Dialect = "container-standards",
        session_seconds: float = 1200.0,
        max_sessions: int = 1000,
        expires: Expires = "standard",
        forgets: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._dialect = dialect
        self._session_seconds = session_seconds
        self._max_sessions = max_sessions
        self._expires = expires
        self._forgets = forgets
        self._clock = clock
        self._conversations: dict[str, C] = {}
        self._turns: LRUCache[str, int] = LRUCache(COUNTED_SESSIONS)

    @property
    def turns(self) -> Mapping[str, int]:
        """See `Container.turns`; the counts outlast the loss of the instance."""
        return dict(self._turns)

    @abstractmethod
    def new_conversation(self, session_id: str, expires_at: float) -> C:
        """Create the state of a new session."""

    @abstractmethod
    async def turn(
        self,
        headers: Mapping[str, str],
        body: bytes,
        conversation: C | None,
        opened: Mapping[str, str],
    ) -> ContainerReply:
        """Handle one turn.

        Args:
            headers: Headers by name in lower case.
            body: The body, as the client sent it.
            conversation: State of its session; None for a turn without one.
            opened: Headers of the reply, if this turn has opened the session.

        Raises:
            Refused: The response is an error.
        """

    async def invoke(self, headers: Mapping[str, str], body: bytes) -> ContainerReply:
        """See `Container.invoke`."""
        session_id = headers.get(SESSION_ID)
        request = json_of(body)
        try:
            control = self._control(request) if isinstance(request, dict) else None
            if control == "open":
                return self._open()
            if control == "close":
                return self._close(session_id)
            if self._dialect == "first-message" and session_id == NEW_SESSION:
                opened = self._open()
                session_id = opened.headers[NEW_SESSION_ID].partition(";")[0]
                conversation = self._conversations[session_id]
                return await self._begin(headers, body, conversation, opened.headers)
            return await self._begin(headers, body, self._find(session_id, request), {})
        except Refused as refused:
            text = refused.text.encode()
            return ContainerReply(refused.status, {"content-type": "text/plain"}, text)

    async def _begin(
        self,
        headers: Mapping[str, str],
        body: bytes,
        conversation: C | None,
        opened: Mapping[str, str],
    ) -> ContainerReply:
        counted = conversation.session_id if conversation else ""
        self._turns[counted] = self._turns.get(counted, 0) + 1
        return await self.turn(headers, body, conversation, opened)

    def expire(self, session_id: str | None) -> None:
        """See `Container.expire`."""
        for conversation in self._conversations.values():
            if session_id in {None, conversation.session_id}:
                conversation.expires_at = self._clock()

    def reset(self) -> None:
        """See `Container.reset`."""
        self._conversations.clear()

    async def close(self) -> None:
        """See `Container.close`."""
        self.reset()

    def _control(self, request: dict[str, Any]) -> str | None:
        """Recognise a session request: ``open`` or ``close``; None for a turn."""
        if self._dialect == "stateless":
            return None
        if self._dialect == "torchserve":
            return {"start_session": "open", "close_session": "close"}.get(request.get("type", ""))
        kind = request.get("requestType")
        if kind is None or (self._dialect == "first-message" and kind == NEW_SESSION):
            return None
        names = {NEW_SESSION: "open", "CLOSE": "close"}
        if kind not in names or set(request) != {"requestType"}:
            raise Refused(400, "a session request has `requestType` alone")
        return names[kind]

    def _open(self) -> ContainerReply:
        now = self._clock()
        self._conversations = {k: c for k, c in self._conversations.items() if now < c.expires_at}
        if len(self._conversations) >= self._max_sessions:
            if self._dialect == "torchserve":
                raise Refused(503, f"worker full: maxSequenceJobQueueSize {self._max_sessions}")
            raise Refused(503, "no room for another session")
        conversation = self.new_conversation(str(uuid.uuid4()), now + self._session_seconds)
        self._conversations[conversation.session_id] = conversation
        text = f"Session {conversation.session_id} created"
        return text_reply(text, {NEW_SESSION_ID: self._described(conversation)})

    def _close(self, session_id: str | None) -> ContainerReply:
        conversation = self._conversations.pop(session_id or "", None)
        if conversation is None or self._clock() >= conversation.expires_at:
            if self._dialect == "torchserve":
                raise Refused(503, "Prediction failed")
            raise Refused(424, "Failed to close session: session not found")
        text = f"Session {session_id} closed"
        return text_reply(text, {CLOSED_SESSION_ID: conversation.session_id})

    def _find(self, session_id: str | None, request: object) -> C | None:
        """Return the state of a turn's session; None for a turn without one."""
        # NEW_SESSION with an ordinary body opens nothing: it is a turn without a session.
        if session_id is None or session_id == NEW_SESSION or self._dialect == "stateless":
            return None
        conversation = self._conversations.get(session_id)
        if conversation is not None and self._clock() >= conversation.expires_at:
            # As in the real containers, the first call after the expiry is silently answered
            # without the session, and only the next one fails.
            del self._conversations[session_id]
            if self._dialect != "torchserve":
                return None
            conversation = None
        if self._dialect == "torchserve":
            named = request.get("session_id") if isinstance(request, dict) else None
            if conversation is None or named != session_id:
                raise Refused(503, "Prediction failed")
        elif conversation is None:
            raise Refused(400, "Bad request: session not found")
        return conversation

    def _described(self, conversation: C) -> str:
        moment = datetime.fromtimestamp(conversation.expires_at, UTC)
        if self._expires == "absent":
            return conversation.session_id
        text = moment.strftime("%Y-%m-%dT%H:%M:%S") + ("" if self._expires == "naive" else "Z")
        return f"{conversation.session_id}; Expires={text}"

    def _renew(self, conversation: C) -> Mapping[str, str]:
        """Give a session a new id and expiry; returns the header that announces them."""
        del self._conversations[conversation.session_id]
        conversation.session_id = str(uuid.uuid4())
        conversation.expires_at = self._clock() + self._session_seconds
        self._conversations[conversation.session_id] = conversation
        return {NEW_SESSION_ID: self._described(conversation)}


def json_of(body: bytes) -> object:
    """Decode a body's JSON; None if it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def utterance(body: bytes) -> str:
    """Find the user's text in any of the usual request formats."""
    match json_of(body):
        case str(text):
            return text
        case {"text": str(text)} | {"inputs": str(text)} | {"prompt": str(text)}:
            return text
        case {"messages": [*_, {"content": str(text)}]}:
            return text
        case _:
            return ""


class Message(msgspec.Struct, frozen=True):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class _Chat(msgspec.Struct, frozen=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]


def chat_of(headers: Mapping[str, str], body: bytes) -> list[Message]:
    """Parse the conversation of a request in OpenAI's chat schema; the last message is a user's.

    Raises:
        Refused: It is not such a request.
    """
    if "json" not in headers.get("content-type", ""):
        raise Refused(400, "a chat request is JSON")
    try:
        messages = msgspec.json.decode(body, type=_Chat).messages
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"not a chat request: {error}") from None
    if messages[-1].role != "user":
        raise Refused(400, "not a chat request: the last message is not a user's")
    return messages


def text_reply(text: str, headers: Mapping[str, str]) -> ContainerReply:
    """Create a plain text reply."""
    return ContainerReply(
        200, {**headers, "content-type": "text/plain; charset=utf-8"}, text.encode()
    )
