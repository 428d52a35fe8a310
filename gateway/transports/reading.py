"""WebSocket frames as they come, as far as that is one turn's work of the event loop.

websockets checks whatever is not plain: fragments, close frames, and all that a client may not
send. A message in one frame, a ping and a pong are read here, which takes a small part of the time;
and so an open connection that is idle has no more state than this.

What is left over is done in later turns, between those of others. Reading is paused meanwhile:
uvloop reads on within a turn, 8 MB if there are as many.
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
"""How many bytes of frames are worked off in one turn of the event loop: 1 to 2 ms."""

FRAME_COST = 2048
"""What a frame takes besides its bytes: as long as so many of them."""

PING_COST = 256
"""What a ping or a pong takes."""

INVALID_DATA = 1007
"""The code for text that is not UTF-8."""

NOT_UTF_8 = "text is not UTF-8"


class FrameReader(asyncio.Protocol):
    """The reading side of a connection.

    Args:
        loop: What it runs on.
        max_size: The largest message.
        budget: Counts what has come and is no whole message yet.
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
        # What has come and is not worked off, from `_at` on.
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._working = False
        self._reading = True
        self._behind = False
        self._checker: Checker | None = None
        self._partial: PartialText | None = None  # of the frame at `_at`

    def data_received(self, data: bytes) -> None:
        """Work off what has come."""
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
        """The application takes messages again, or for the first time."""
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
        """Take what comes before frames do."""

    @abstractmethod
    def _deliver(self, payload: bytes, *, text: bool) -> None:
        """Hand a message over. `_behind` is to be set where it is to be the last one for now."""

    @abstractmethod
    def _answer(self, pongs: list[bytes]) -> None:
        """Answer pings."""

    @abstractmethod
    def _answered(self) -> None:
        """The peer has answered the close frame that it was sent."""

    @abstractmethod
    def _half_close(self, code: int, reason: str, unread: int = 0) -> None:
        """Write nothing more: the state is CLOSED now.

        Args:
            code: Of the close frame that was the last.
            reason: Its reason.
            unread: How many bytes the client is in the middle of sending.
        """

    def _count(self) -> None:
        """Tell the budget of what is held, where that is much."""
        held = len(self._buffer) - self._at + self._unsent
        if self._checker is not None:
            held += self._checker.held
        if held > COUNTED_BYTES or self.held:
            self._budget.change(self, held if held > COUNTED_BYTES else 0)

    def _discard(self) -> None:
        """Nothing more is read: hold nothing."""
        self._stop_checker()
        self._buffer, self._at = b"", 0
        self._count()

    def _keep(self, data: bytes) -> None:
        """Add it to what is not worked off."""
        if self._at or isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
            self._at = 0
        self._buffer += data

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _work(self, received: int = 0) -> None:
        """Work off whole frames up to the budget, and go on in the next turn of the event loop.

        Args:
            received: How many bytes have just come.
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
        """Work off whole frames; True where the budget is spent."""
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
        self._buffer, self._at = data[at:] if at else data, 0  # no copy of what is not whole
        return False

    def _check_part(
        self, data: bytes | bytearray, at: int, partial: PartialText | None
    ) -> tuple[int, str] | None:
        """Check the text of a frame that has come in part; what is wrong with it, as `fault`.

        Args:
            data: Has a valid header of it.
            at: Where it begins.
            partial: Of the frame at `_at`, where that has been checked before.
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
        """Answer the pings that have been read."""
        if pongs and self._state is State.OPEN:
            self._answer(pongs)
        pongs.clear()

    # What is left to websockets

    def _start_checker(self) -> Checker:
        self._stop_checker()
        self._checker = Checker(self._max_size)
        return self._checker

    def _stop_checker(self) -> None:
        if self._checker is not None:
            self._checker.stop()
            self._checker = None

    def _pass_on(self, frame: bytes) -> None:
        """Have a frame checked that is more than a message, a ping or a pong."""
        checker = self._checker
        # A client may close in the middle of a message; websockets takes that for an error.
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
        """Send what websockets has to say, which may be the last of all."""
        data, last = checker.to_send()
        if data:
            self._transport.write(data)
        if last:
            close = Close.parse(data[2:])  # past the header of the close frame
            self._half_close(close.code, close.reason, unread)
