"""What websockets' sans-I/O core is used for: fragmented messages, and how connections close."""

import codecs
import contextlib
import logging

from websockets.frames import Frame, Opcode
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from gateway.transports.frames import apply_mask

# Its debug lines quote frames, which are never logged, whatever the level of the root logger.
websockets_log = logging.getLogger("gateway.websockets")
websockets_log.setLevel(logging.WARNING)


def forget(conn: ServerProtocol) -> None:
    """Free websockets' state of a connection immediately.

    Its parser holds a reference cycle, so it would stay until garbage collection.
    """
    with contextlib.suppress(TypeError):  # objects with slots have no such dictionary
        vars(conn).clear()


def _check(decoder: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> None:
    """Check the next part of a text.

    Raises:
        UnicodeDecodeError: The text is not UTF-8 up to here.
    """
    decoder.decode(data, final=final)
    pending = decoder.getstate()[0]
    if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":  # which Python detects a byte later
        raise UnicodeDecodeError("utf-8", pending, 0, 2, "half of a surrogate pair")


class PartialText:
    """The text of a partially received frame, checked as it arrives (RFC 6455, section 8.1).

    Args:
        state: State of the decoder after the preceding fragments.
    """

    __slots__ = ("_decoder", "_seen")

    def __init__(self, state: tuple[bytes, int] = (b"", 0)) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._decoder.setstate(state)
        self._seen = 0

    def check(self, data: bytes | bytearray, begin: int) -> None:
        """Check the data that has arrived since the last call.

        Args:
            data: The buffer; ends with the received part of the frame.
            begin: Index of the frame's payload.

        Raises:
            UnicodeDecodeError: The text is not UTF-8 up to here.
        """
        turn = self._seen % 4
        mask = data[begin - 4 + turn : begin] + data[begin - 4 : begin - 4 + turn]
        _check(self._decoder, apply_mask(memoryview(data)[begin + self._seen :], mask))
        self._seen = len(data) - begin


class Checker:
    """A connection within a fragmented message, or about to close.

    It receives complete frames with valid headers.

    Args:
        max_size: Maximum size of a message.
    """

    __slots__ = ("_conn", "_decoder", "_joined", "_text")

    def __init__(self, max_size: int) -> None:
        self._conn = ServerProtocol(state=State.OPEN, max_size=max_size, logger=websockets_log)
        self._joined: bytearray | None = None
        self._text = False
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def has_fragments(self) -> bool:
        """Whether a fragmented message is incomplete."""
        return self._joined is not None

    @property
    def held(self) -> int:
        """Bytes of the fragments of an incomplete message."""
        return 0 if self._joined is None else len(self._joined)

    def next_part(self) -> PartialText | None:
        """Return a check for a partially received fragment; None if the message is binary."""
        return None if self._decoder is None else PartialText(self._decoder.getstate())

    def receive(self, data: bytes) -> tuple[bytes, bool] | None:
        """Process a frame; return the message that it completes, and whether that is text.

        Raises:
            UnicodeDecodeError: The text is not UTF-8 up to here.
        """
        self._conn.receive_data(data)
        message = None
        for frame in self._conn.events_received():
            if isinstance(frame, Frame) and self._add(frame):
                message = bytes(self._joined or b""), self._text
                self._joined = self._decoder = None
        return message

    def _add(self, frame: Frame) -> bool:
        """Add a fragment to its message; return True if it is the last one."""
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._text = frame.opcode is Opcode.TEXT
            self._decoder = codecs.getincrementaldecoder("utf-8")() if self._text else None
            self._joined = bytearray()  # a list of one-byte fragments would take many times as much
        if self._joined is None or frame.opcode >= Opcode.CLOSE:
            return False
        if self._decoder is not None:
            _check(self._decoder, bytes(frame.data), final=frame.fin)
        self._joined += frame.data
        return frame.fin

    def send_close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""
        self._conn.send_close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Fail the WebSocket connection (RFC 6455, section 7.1.7)."""
        self._conn.fail(code, reason)

    def to_send(self) -> tuple[bytes, bool]:
        """Return data to send, if any, and whether nothing may be sent after it."""
        chunks = self._conn.data_to_send()
        return b"".join(chunks), SEND_EOF in chunks

    def stop(self) -> None:
        """Free its state immediately."""
        forget(self._conn)
