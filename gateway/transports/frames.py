"""Parses the boundaries of WebSocket frames, and encodes headers (RFC 6455, section 5.2)."""

from struct import Struct

from websockets.frames import CloseCode, Opcode

try:  # the C version, which websockets does not export
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

__all__ = [
    "BINARY",
    "CLOSE",
    "MASKED",
    "OPCODE",
    "PING",
    "PONG",
    "TEXT",
    "apply_mask",
    "extent",
    "fault",
    "header",
]

TEXT, BINARY = 0x81, 0x82
"""First byte of a frame that is a complete message."""

CLOSE, PING, PONG = 0x88, 0x89, 0x8A
"""First byte of a control frame."""

CONTROL_BYTES = 125
"""Maximum payload of a control frame."""

MASKED = 0x80
"""Bit of the second byte that is set in every frame of a client."""

OPCODE = 0x0F
"""Bits of the first byte that hold the opcode."""

_FIN, _RESERVED, _CONTROL = 0x80, 0x70, 0x08
_OPCODES = frozenset(Opcode)
_HEADER_16, _HEADER_64 = Struct("!BBH"), Struct("!BBQ")


def extent(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the start and the end of the payload of the frame at this index.

    Both are beyond the data if the header is incomplete; the end is if the payload is incomplete.
    """
    size = len(data)
    if at + 2 > size:
        return size + 1, size + 1
    second, begin = data[at + 1], at + 2
    length = second & 0x7F
    if length > CONTROL_BYTES:
        begin += 2 if length == 126 else 8
        length = int.from_bytes(data[at + 2 : begin], "big")
    if second >= MASKED:
        begin += 4
    return (begin, begin + length) if begin <= size else (size + 1, size + 1)


def fault(data: bytes | bytearray, at: int, size: int, max_size: int) -> tuple[int, str] | None:
    """Check the header of a client's frame; return a close code and a reason if it is not valid.

    Args:
        data: Contains at least the header's first two bytes.
        at: Index of the header.
        size: Payload size, as far as it is known.
        max_size: Maximum payload size.
    """
    first = data[at]
    if first & _RESERVED or first & OPCODE not in _OPCODES:
        return CloseCode.PROTOCOL_ERROR, "invalid opcode or reserved bits"
    if not data[at + 1] & MASKED:
        return CloseCode.PROTOCOL_ERROR, "incorrect masking"
    if first & _CONTROL and (not first & _FIN or data[at + 1] & 0x7F > CONTROL_BYTES):
        return CloseCode.PROTOCOL_ERROR, "fragmented or too long control frame"
    if size > max_size:
        return CloseCode.MESSAGE_TOO_BIG, f"frame with {size} bytes exceeds limit of {max_size}"
    return None


def header(first: int, size: int) -> bytes:
    """Encode the header of a server's frame: final and not masked."""
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return _HEADER_16.pack(first, 126, size)
    return _HEADER_64.pack(first, 127, size)
