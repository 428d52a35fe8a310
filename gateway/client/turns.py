"""One message and its reply, as a user of the client holds them."""

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
    """A turn's end.

    Attributes:
        id: The message's.
        status: ``cancelled`` where it was stopped; what had come by then is there.
        complete: Whether all that the model said is there. It is not for a cancelled turn, and
            where the connection was away for longer than the gateway keeps a reply.
        outcome: Of a cancelled turn: whether the model saw it; else None.
        content_type: Of the reply.
        variant: The production variant that answered.
        custom_attributes: What the model gave beside the reply.
        duration: Seconds that the turn took, measured at the gateway.
        deltas: How many parts the model's reply came in; 0 where it was not streamed.
        dropped_turns: How many of the oldest turns the model was not told again with this one,
            since they no longer fit; 0 also where the model keeps the conversation itself.
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
        """The body; text is UTF-8.

        Raises:
            ReplyTooLarge: Parts of it were iterated over and no longer kept.
        """
        if self._parts is None:
            raise ReplyTooLarge("the reply is no longer whole: it was taken in parts")
        return b"".join(part.encode() if isinstance(part, str) else part for part in self._parts)

    @property
    def text(self) -> str:
        """The body as text.

        Raises:
            UnicodeDecodeError: It is none.
            ReplyTooLarge: See `bytes`.
        """
        return self.bytes.decode()

    def json(self) -> Any:
        """The body's JSON value.

        Raises:
            ValueError: It is not JSON.
            ReplyTooLarge: See `bytes`.
        """
        return msgspec.json.decode(self.bytes)


class Turn:
    """A message that was sent, and its reply: iterate over it, await it, or both.

    ::

        async for part in turn:     # as the model says it
            print(part, end="")
        reply = await turn          # the whole, and what else is known

    A part is text, or bytes where the model's reply is not text; a reply that was not streamed is
    one part, JSON is its text. Each part is handed out once, so a second loop goes on where the
    first one stopped. Both ways raise `MessageFailed`; a loop does it after the last part.

    To stop waiting is not to stop the model: only `cancel` does that.

    A turn holds up to ``max_reply_bytes`` of its reply. Parts that were iterated over make room
    for others once that is reached; then `Reply.text` and the like are not there any more. If
    there is nothing to make room with, the turn is cancelled and raises `ReplyTooLarge`. So a
    turn that nobody reads stays within its bound, and never keeps other turns from going on.
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
        """Whether nothing more will come, so that awaiting it does not wait."""
        return self._end is not None

    def __await__(self) -> Generator[Any, None, Reply]:
        return self.whole().__await__()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (part := await self.next()) is not None:
            yield part
        await self

    async def cancel(self) -> None:
        """Ask for the turn to be stopped, and wait for its end; a turn that has ended stays so.

        Awaiting the turn then gives a reply whose status is ``cancelled``, or ``completed`` where
        the model was faster.
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
