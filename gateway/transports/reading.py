"""Reads WebSocket frames, a bounded amount in each turn of the event loop.

websockets handles everything unusual: fragments, close frames, and all that a client must not send.
Messages in a single frame, pings and pongs are parsed here, which takes a small part of the time;
an idle connection therefore has no other state than this.

The rest of the data is parsed in later turns, between those of other connections. Reading is paused
meanwhile: uvloop would go on reading in the same turn, up to 8 MB.
"""

import asyncio
from abc import abstractmethod

from websockets.frames import Close, Opcode
from websockets.protocol import State

from gateway.budget import COUNTED_BYTES, ByteBudget
from gateway.transports.checker import Checker, PartialText
from gateway.transports.frames import (
    BINARY,
    CLOSE,
    MASKED,
    OPCODE,
    PING,
    PONG,
    TEXT,
    apply_mask,
    extent,
    fault,
    header,
)
from gateway.transports.sockets import READ_BYTES

READ_BUDGET = 65_536
"""Bytes of frames parsed in one turn of the event loop, which takes 1 to 2 ms."""

FRAME_COST = 2048
"""Cost of a frame besides its bytes, as a number of bytes."""

PING_COST = 256
"""Cost of a ping or a pong."""

INVALID_DATA = 1007
"""Close code for text that is not UTF-8."""

NOT_UTF_8 = "text is not UTF-8"


class FrameReader(asyncio.Protocol):
    """The reading side of a connection.

    Args:
        loop: The event loop.
        max_size: Maximum size of a message.
        budget: Accounts for buffered data, such as incomplete messages.
    """

    __slots__ = (
        "_at",
        "_behind",
        "_budget",
        "_buffer",
        "_checker",
        "_last_seen",
        "_loop",
        "_max_size",
        "_partial",
        "_reading",
        "_state",
        "_transport",
        "_unsent",
        "_working",
        "held",
    )

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, max_size: int, budget: ByteBudget) -> None:
        self.held = 0
        self._budget = budget
        self._unsent = 0
        self._loop = loop
        self._max_size = max_size
        self._state = State.CONNECTING
        self._last_seen = 0.0
        # Received data; what is before `_at` has been parsed.
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._working = False
        self._reading = True
        self._behind = False
        self._checker: Checker | None = None
        self._partial: PartialText | None = None  # text of the frame at `_at`

    def data_received(self, data: bytes) -> None:
        """Parse received data."""
        self._last_seen = self._loop.time()
        if self._state is State.CONNECTING:
            self._receive_early(data)
            return
        if self._buffer:
            self._keep(data)
        else:
            self._buffer = data
        if not self._working:
            self._work(len(data))

    def read_on(self) -> None:
        """Resume reading: the application is ready for messages."""
        self._behind = False
        if self._state is State.CONNECTING or self._working:
            return
        if self._buffer or not self._reading:
            self._working = True
            self._loop.call_soon(self._work)

    @abstractmethod
    def give_back(self) -> None:
        """See `gateway.budget.Holder`."""

    @abstractmethod
    def _receive_early(self, data: bytes) -> None:
        """Handle data received before the handshake is complete."""

    @abstractmethod
    def _deliver(self, payload: bytes, *, text: bool) -> None:
        """Pass a message on. Sets `_behind` if no further one should be passed on for now."""

    @abstractmethod
    def _answer(self, pongs: list[bytes]) -> None:
        """Answer pings."""

    @abstractmethod
    def _answered(self) -> None:
        """Handle the peer's answer to a close frame."""

    @abstractmethod
    def _half_close(self, code: int, reason: str, unread: int = 0) -> None:
        """Stop writing; sets the state to CLOSED.

        Args:
            code: Code of the close frame that was sent last.
            reason: Its reason.
            unread: Bytes that the client still has to send of a frame.
        """

    def _count(self) -> None:
        """Report what is buffered to the budget, if it is much."""
        held = len(self._buffer) - self._at + self._unsent
        if self._checker is not None:
            held += self._checker.held
        if held > COUNTED_BYTES or self.held:
            self._budget.change(self, held if held > COUNTED_BYTES else 0)

    def _discard(self) -> None:
        """Discard what is buffered: nothing more is read."""
        self._stop_checker()
        self._buffer, self._at = b"", 0
        self._count()

    def _keep(self, data: bytes) -> None:
        """Append data to the unparsed data."""
        if self._at or isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
            self._at = 0
        self._buffer += data

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _work(self, received: int = 0) -> None:
        """Parse complete frames up to the budget; continue in the next turn of the event loop.

        Args:
            received: Bytes that have just been received.
        """
        self._working = False
        spent = self._read_frames()
        if self._state is State.CLOSED:
            self._buffer, self._at = b"", 0
        if self._buffer or self.held or self._checker is not None:
            self._count()
        if self._state is State.CLOSED:
            return
        if self._behind:
            self._pause_reading()
        elif spent or received >= READ_BYTES:
            self._pause_reading()
            self._working = True
            self._loop.call_soon(self._work)
        elif not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _read_frames(self) -> bool:
        """Parse complete frames; return True if the budget is spent."""
        data, at = self._buffer, self._at
        size, max_size = len(data), self._max_size
        budget = READ_BUDGET
        pongs: list[bytes] = []
        partial, self._partial = self._partial, None
        while at + 1 < size and budget > 0 and not self._behind:
            first = data[at]
            begin, stop = extent(data, at)
            if (
                (first == TEXT or first == BINARY)  # noqa: PLR1714, SIM109 - takes half as long
                and stop <= size
                and stop - begin <= max_size
                and data[at + 1] >= MASKED
                and self._checker is None
                and self._state is State.OPEN
            ):
                payload = apply_mask(memoryview(data)[begin:stop], data[begin - 4 : begin])
                self._deliver(payload, text=first == TEXT)
                budget -= FRAME_COST + stop - at
                at = stop
                continue
            if self._state is State.CLOSED:
                break
            wrong = fault(data, at, stop - begin, max_size) or self._check_part(data, at, partial)
            if wrong is not None:
                self._flush(pongs)
                self._fail(*wrong, unread=stop - size)
                break
            if stop > size:
                break
            if first < PING or self._state is not State.OPEN:
                self._flush(pongs)
                self._pass_on(bytes(data[at:stop]))
                budget -= FRAME_COST + stop - at
            else:
                if first != PONG:
                    payload = apply_mask(memoryview(data)[begin:stop], data[begin - 4 : begin])
                    pongs.append(header(PONG, len(payload)) + payload)
                budget -= PING_COST + stop - at
            at = stop
        if pongs:
            self._flush(pongs)
        if budget <= 0:
            self._buffer, self._at = data, at
            return True
        self._buffer, self._at = data[at:] if at else data, 0  # don't copy an incomplete frame
        return False

    def _check_part(
        self, data: bytes | bytearray, at: int, partial: PartialText | None
    ) -> tuple[int, str] | None:
        """Check the text of a partially received frame; returns what is wrong, like `fault`.

        Args:
            data: Contains the frame's header, which is valid.
            at: Index of the frame.
            partial: Text of the frame at `_at`, if part of it has been checked before.
        """
        begin, stop = extent(data, at)
        if not begin < len(data) < stop or self._state is not State.OPEN:
            return None
        if partial is None or at != self._at:
            partial = self._begin_part(data[at] & OPCODE)
        if partial is not None:
            try:
                partial.check(data, begin)
            except UnicodeDecodeError:
                return INVALID_DATA, NOT_UTF_8
        self._partial = partial
        return None

    def _begin_part(self, opcode: int) -> PartialText | None:
        if opcode == Opcode.TEXT:
            return PartialText()
        if opcode == Opcode.CONT and self._checker is not None:
            return self._checker.next_part()
        return None

    def _flush(self, pongs: list[bytes]) -> None:
        """Answer the pings that were read."""
        if pongs and self._state is State.OPEN:
            self._answer(pongs)
        pongs.clear()

    # Handled by websockets

    def _start_checker(self) -> Checker:
        self._stop_checker()
        self._checker = Checker(self._max_size)
        return self._checker

    def _stop_checker(self) -> None:
        if self._checker is not None:
            self._checker.stop()
            self._checker = None

    def _pass_on(self, frame: bytes) -> None:
        """Pass a frame to websockets: a fragment, a close frame, or one that isn't valid."""
        checker = self._checker
        # A client may close in the middle of a message, but websockets considers that an error.
        if checker is None or (frame[0] == CLOSE and checker.has_fragments):
            checker = self._start_checker()
        if frame[0] == CLOSE and self._state is State.CLOSING:
            self._answered()
        try:
            message = checker.receive(frame)
        except UnicodeDecodeError:
            self._fail(INVALID_DATA, NOT_UTF_8)
            return
        self._send(checker)
        if message is not None and self._state is State.OPEN:
            self._stop_checker()
            payload, text = message
            self._deliver(payload, text=text)

    def _fail(self, code: int, reason: str, *, unread: int = 0) -> None:
        """Fail the WebSocket connection (RFC 6455, section 7.1.7)."""
        checker = self._checker or self._start_checker()
        checker.fail(code, reason)
        self._send(checker, unread)

    def _send(self, checker: Checker, unread: int = 0) -> None:
        """Send what websockets wants to send, and stop writing if that is the last."""
        data, last = checker.to_send()
        if data:
            self._transport.write(data)
        if last:
            close = Close.parse(data[2:])  # past the header of the close frame
            self._half_close(close.code, close.reason, unread)
