"""What is left to websockets' sans-I/O core: messages in fragments, and how connections close."""

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
    """Free what websockets keeps of a connection at once.

    Its parser refers back to it, so that it would wait for Python's collector of cyclic garbage.
    """
    with contextlib.suppress(TypeError):  # where it has slots, there is no such dictionary
        vars(conn).clear()


def _check(decoder: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> None:
    """Check the next piece of a text.

    Raises:
        UnicodeDecodeError: It is not UTF-8 so far.
    """
    decoder.decode(data, final=final)
    pending = decoder.getstate()[0]
    if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":  # which Python sees a byte later
        raise UnicodeDecodeError("utf-8", pending, 0, 2, "half of a surrogate pair")


class PartialText:
    """The text of a frame that has come in part, checked as it comes (RFC 6455, section 8.1).

    Args:
        state: Of the decoder of the fragments before it.
    """

    __slots__ = ("_decoder", "_seen")

    def __init__(self, state: tuple[bytes, int] = (b"", 0)) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._decoder.setstate(state)
        self._seen = 0

    def check(self, data: bytes | bytearray, begin: int) -> None:
        """Check what has come since the last time.

        Args:
            data: Ends with what has come of the frame.
            begin: Where its payload begins.

        Raises:
            UnicodeDecodeError: It is not UTF-8 so far.
        """
        turn = self._seen % 4
        mask = data[begin - 4 + turn : begin] + data[begin - 4 : begin - 4 + turn]
        _check(self._decoder, apply_mask(memoryview(data)[begin + self._seen :], mask))
        self._seen = len(data) - begin


class Checker:
    """An open connection in the middle of a message, or about to close.

    It is given whole frames with valid headers.

    Args:
        max_size: The largest message.
    """

    __slots__ = ("_conn", "_decoder", "_joined", "_text")

    def __init__(self, max_size: int) -> None:
        self._conn = ServerProtocol(state=State.OPEN, max_size=max_size, logger=websockets_log)
        self._joined: bytearray | None = None
        self._text = False
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def has_fragments(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._joined is not None

    @property
    def held(self) -> int:
        """How many bytes the fragments of a message have that has not ended."""
        return 0 if self._joined is None else len(self._joined)

    def next_part(self) -> PartialText | None:
        """For a fragment that has come in part; None where its message is no text."""
        return None if self._decoder is None else PartialText(self._decoder.getstate())

    def receive(self, data: bytes) -> tuple[bytes, bool] | None:
        """Take a frame; the message that it completes, and whether that is text.

        Raises:
            UnicodeDecodeError: The text is not UTF-8 so far.
        """
        self._conn.receive_data(data)
        message = None
        for frame in self._conn.events_received():
            if isinstance(frame, Frame) and self._add(frame):
                message = bytes(self._joined or b""), self._text
                self._joined = self._decoder = None
        return message

    def _add(self, frame: Frame) -> bool:
        """Add a fragment to its message; True where it is the last one."""
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._text = frame.opcode is Opcode.TEXT
            self._decoder = codecs.getincrementaldecoder("utf-8")() if self._text else None
            self._joined = bytearray()  # kept apart, frames of a byte take many times their size
        if self._joined is None or frame.opcode >= Opcode.CLOSE:
            return False
        if self._decoder is not None:
            _check(self._decoder, bytes(frame.data), final=frame.fin)
        self._joined += frame.data
        return frame.fin

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        self._conn.send_close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Fail the WebSocket connection (RFC 6455, section 7.1.7)."""
        self._conn.fail(code, reason)

    def to_send(self) -> tuple[bytes, bool]:
        """A close frame or a pong, if any, and whether nothing may be sent after it."""
        chunks = self._conn.data_to_send()
        return b"".join(chunks), SEND_EOF in chunks

    def stop(self) -> None:
        """Free it at once."""
        forget(self._conn)
