"""Streamed replies, from the bytes of a body to the parts that a client receives."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Protocol

from gateway.formats.streams import Part, Splitter
from gateway.sagemaker.budget import ReadBudget
from gateway.sagemaker.exceptions import ReplyFailed
from gateway.sagemaker.payloads import Payloads
from gateway.sagemaker.transport import OnEnd, OnHead, StreamedReply
from gateway.session.ports import OnParts

SLICE_BYTES = 65_536
"""How much of an event is split at a time."""
UNREAD_BYTES = 65_536
"""How much of a body may be unread before its connection is paused, until half of that is left."""
PARTS_APART = 16
"""Up to this many parts that arrive together are passed on one by one; more are joined."""

_COST_BYTES = 256


class Source(Protocol):
    """The source of a body."""

    def pause_reading(self) -> None:
        """Pause receiving."""
        ...

    def resume_reading(self) -> None:
        """Resume receiving."""
        ...

    def cancel(self) -> object:
        """Close it; no data arrives after this."""
        ...


class Framing(Protocol):
    """The framing of a body's payload."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Lazily yield the payloads that these bytes complete."""
        ...

    def end(self) -> None:
        """End the body."""
        ...


class WholeBody:
    """No framing: the body is the payload."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """See `Framing.feed`."""
        return (data,)

    def end(self) -> None:
        """See `Framing.end`."""


class ReplyReader:
    """Reads a streamed reply, as much at a time as its budget allows.

    An error ends the call with `ReplyFailed`, after the parts before it.

    Args:
        budget: Shared by all replies.
        on_head: See `Transport.invoke_endpoint_with_response_stream`.
        on_parts: Likewise.
        on_end: Likewise. Called once, unless the call is cancelled.
        framing: The body's framing; an event stream by default.

    Attributes:
        source: Set before data is fed; None if it can't be paused.
        unread: Whether there is fed data that was not read.
    """

    def __init__(
        self,
        budget: ReadBudget,
        on_head: OnHead,
        on_parts: OnParts,
        on_end: OnEnd[StreamedReply],
        framing: Framing | None = None,
    ) -> None:
        self.source: Source | None = None
        self.unread = False
        self._budget = budget
        self._on_head = on_head
        self._on_parts = on_parts
        self._on_end = on_end
        self._framing: Framing = framing or Payloads()
        self._splitter: Splitter
        self._result: StreamedReply | Exception | None = None
        self._body: deque[bytes] = deque()
        self._size = 0
        self._steps: Iterator[Part | None] | None = None
        self._cost = 0
        self._paused = False
        self._whole = False
        self._over = False

    def begin(self, reply: StreamedReply) -> None:
        """Process the head."""
        self._result = reply
        self._splitter = self._on_head(reply)

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the body."""
        if self._over:
            return
        self._body.append(data)
        self._size += len(data)
        if not self.unread:
            self.unread = True
            self._budget.read(self)
        if self.unread and self._size > UNREAD_BYTES and not self._paused and self.source:
            self._paused = True
            self.source.pause_reading()

    def end(self, error: Exception | None = None) -> None:
        """End the body, or fail the call, once unread data was read."""
        self._whole = True
        if error is not None:
            self._result = error
        if not self.unread:
            self._finish()

    def cancel(self) -> None:
        """Close the source; no callback runs after this."""
        self._over, self.unread = True, False
        self._body.clear()
        self._steps = None
        source, self.source = self.source, None
        if source is not None:
            source.cancel()

    def read(self, most: int) -> int:
        """See `Readable.read`."""
        if self._over:
            return 0
        parts: list[Part] = []
        self._cost = 0
        try:
            try:
                self._read(parts, most)
            finally:
                self._pass_on(parts)  # also the parts before an error
        except Exception as error:  # noqa: BLE001 - the caller's
            self._fail(error)
            return self._cost
        if self._paused and self._size * 2 <= UNREAD_BYTES and self.source is not None:
            self._paused = False
            self.source.resume_reading()
        if self._whole and not self.unread:
            self._finish()
        return self._cost

    def _read(self, parts: list[Part], most: int) -> None:
        if self._steps is None:
            self._steps = self._all()
        for part in self._steps:
            if part is not None:
                parts.append(part)
            self._cost += 1
            if self._cost >= most:
                return
        self._steps = None
        self.unread = False

    def _all(self) -> Iterator[Part | None]:
        """Yield the parts of the unread data, step by step."""
        while self._body:
            for payload in self._framing.feed(self._body[0]):
                for start in range(0, len(payload) or 1, SLICE_BYTES):
                    data = payload[start : start + SLICE_BYTES]
                    self._cost += len(data) // _COST_BYTES
                    yield from self._splitter.feed(data)
                    yield None
            self._size -= len(self._body.popleft())

    def _pass_on(self, parts: list[Part]) -> None:
        if len(parts) > PARTS_APART and self._splitter.joins:
            parts = _joined(parts)
        if parts and not self._over:
            self._on_parts(parts)

    def _finish(self) -> None:
        result = self._result
        if not isinstance(result, Exception) and not self._over:
            try:
                self._framing.end()
                self._pass_on([part for part in self._splitter.end() if part is not None])
            except Exception as error:  # noqa: BLE001 - the caller's
                result = ReplyFailed(error)
        self._close(result)

    def _fail(self, error: Exception) -> None:
        source = self.source
        self._close(ReplyFailed(error))
        if source is not None:
            source.cancel()

    def _close(self, result: StreamedReply | Exception | None) -> None:
        """Call `on_end`, and break reference cycles."""
        if self._over:
            return
        self._over, self.unread = True, False
        self.source = self._steps = self._result = None
        self._body.clear()
        assert result is not None  # noqa: S101 - a body has an end after its head
        self._on_end(result)


def _joined(parts: list[Part]) -> list[Part]:
    """Join adjacent parts of the same type."""
    joined: list[Part] = []
    for kind, group in groupby(parts, type):
        nothing = kind()
        joined.append(nothing.join(group))
    return joined
