"""A message and its reply."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from gateway.client.errors import ReplyTooLarge, SessionError
from gateway.errors import Outcome
from gateway.protocol.codecs import Frame

PART_BYTES = 128
"""About what a part takes in memory beside its text."""
SHOWN = 60
"""So many characters of a reply are in its `repr`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The end of a turn that was answered or cancelled.

    Attributes:
        id: The message's id.
        status: ``completed``, or ``cancelled``; a cancelled reply has the parts received so far.
        complete: Whether all parts of the reply were received. False for a cancelled turn, and if
            the client was disconnected for longer than the gateway keeps a reply.
        outcome: For a cancelled turn, whether the model saw the message; otherwise None.
        content_type: The reply's content type.
        variant: The production variant that answered.
        custom_attributes: The custom attributes that the model returned.
        duration: How long the turn took, in seconds, measured by the gateway.
        deltas: The number of parts of a streamed reply; 0 if it was not streamed.
        dropped_turns: How many of the oldest turns no longer fit into the model's request. 0 if
            the model keeps the conversation itself.
    """

    id: str
    status: Literal["completed", "cancelled"]
    complete: bool = True
    outcome: Outcome | None = None
    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None
    duration: float | None = None
    deltas: int = 0
    dropped_turns: int = 0
    _parts: tuple[str | bytes, ...] | None = field(default=(), repr=False)

    def __repr__(self) -> str:
        incomplete = "" if self.complete or self.status == "cancelled" else ", incomplete"
        return f"<Reply {self._shown()} {self.status}{incomplete}>"

    def _shown(self) -> str:
        try:
            text = self.text
        except UnicodeDecodeError:
            return f"of {len(self.bytes)} bytes"
        except ReplyTooLarge:
            return "taken in parts"
        return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")

    @property
    def bytes(self) -> bytes:
        """The body as bytes; text is encoded as UTF-8.

        Raises:
            ReplyTooLarge: The turn was iterated over, and its first parts are no longer kept.
        """
        if self._parts is None:
            raise ReplyTooLarge(
                "the reply's first parts are no longer kept: collect them as they come"
            )
        return b"".join(part.encode() if isinstance(part, str) else part for part in self._parts)

    @property
    def text(self) -> str:
        """The body as text.

        Raises:
            UnicodeDecodeError: It is not UTF-8.
            ReplyTooLarge: See `bytes`.
        """
        return self.bytes.decode()

    def json(self) -> Any:
        """The body parsed as JSON.

        Raises:
            ValueError: It is not JSON.
            ReplyTooLarge: See `bytes`.
        """
        return msgspec.json.decode(self.bytes)


class Turn:
    """A message that was sent, and its reply: iterate over it, await it, or both.

    ::

        async for part in turn:     # the parts, as the model generates them
            print(part, end="")
        reply = await turn          # the complete reply

    A part is text, or bytes if the reply is not text. A reply that is not streamed is one part; a
    JSON reply is its text. Each part is returned once, so a second loop continues where the first
    one stopped. Awaiting and iterating both raise `MessageFailed`; a loop raises it after the last
    part.

    Leaving the loop, or no longer awaiting the turn, does not stop the model. Call `cancel`.

    A turn keeps up to ``max_reply_bytes`` of its reply. Beyond that, it discards parts that were
    iterated over, and `Reply.text`, `Reply.bytes` and `Reply.json` are not available. If no part
    can be discarded, the turn is cancelled and raises `ReplyTooLarge`. A turn that is not read
    therefore uses a limited amount of memory, and never blocks other turns.
    """

    def __init__(
        self, message_id: str, frame: Frame, limit: int, stop: Callable[["Turn"], None]
    ) -> None:
        self.id = message_id
        self.frame = frame
        self.written = False
        self.accepted = False
        self.uncertain = False
        self.cancelling = False
        self.next_index = 0
        self._limit = limit
        self._stop = stop
        self._parts: deque[str | bytes] = deque()
        self._size = 0
        self._read = 0
        self._dropped = False
        self._missing = False
        self._end: Reply | SessionError | None = None
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Turn {self.id} {'ended' if self.ended else 'pending'}>"

    @property
    def ended(self) -> bool:
        """Whether the turn has ended, so that awaiting it returns at once."""
        return self._end is not None

    def __await__(self) -> Generator[Any, None, Reply]:
        return self.whole().__await__()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (part := await self.next()) is not None:
            yield part
        await self

    async def cancel(self) -> None:
        """Cancel the turn and wait until it has ended. Has no effect on a turn that has ended.

        The reply's status is then ``cancelled``, or ``completed`` if the model finished first.
        """
        if not self.ended:
            self.cancelling = True
            self._stop(self)
        await self._ended.wait()

    # For the session, and for `gateway.client.sync`

    async def whole(self) -> Reply:
        """Wait for the end."""
        while (reply := self.reply()) is None:
            await self._ended.wait()
        return reply

    def reply(self) -> Reply | None:
        """How the turn has ended; None while it has not.

        Raises:
            SessionError: It has failed.
        """
        if isinstance(self._end, SessionError):
            raise self._end
        return self._end

    async def next(self) -> str | bytes | None:
        """Wait for the next part; None where there is none."""
        while True:
            self._news.clear()
            part = self.take()
            if part is not None or self.ended:
                return part
            await self._news.wait()

    def take(self) -> str | bytes | None:
        """The next part; None where there is none yet, or none any more."""
        if self._read == len(self._parts):
            return None
        self._read += 1
        return self._parts[self._read - 1]

    def add(self, part: str | bytes, index: int | None = None) -> bool:
        """Take the reply's next part; false where there is no room for it."""
        if index is not None:
            self._missing = self._missing or index != self.next_index
            self.next_index = index + 1
        self._parts.append(part)
        self._size += _size(part)
        while self._size > self._limit and self._read:
            self._size -= _size(self._parts.popleft())
            self._read -= 1
            self._dropped = True
        self._news.set()
        return self._size <= self._limit

    def end(self, end: Reply | SessionError) -> None:
        """End with this reply, whose body is what was added, or with this error."""
        if isinstance(end, Reply):
            whole = not self._missing and end.deltas == self.next_index
            end = replace(
                end,
                complete=end.complete and whole and end.status == "completed",
                _parts=None if self._dropped else tuple(self._parts),
            )
        self._end = end
        self.frame = ""
        self._ended.set()
        self._news.set()


def _size(part: str | bytes) -> int:
    """About what a part takes in memory."""
    return PART_BYTES + (len(part) if isinstance(part, bytes) else len(part.encode()))
