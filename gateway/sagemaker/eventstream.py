"""An incremental parser for ``application/vnd.amazon.eventstream``, without I/O.

An event is a prelude (total length, length of the headers, a checksum of both), headers, a payload,
and a checksum of everything before it; numbers are big-endian, checksums CRC-32. The parts of a
reply repeat the same headers, so these are parsed once.
"""

from collections.abc import Iterator, Mapping
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any
from zlib import crc32

HEADER_BYTES = 131_072
"""The largest headers of an event, as in botocore."""
PAYLOAD_BYTES = 25_165_824
"""The largest payload of an event, as in botocore."""

_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_LEAST = _PRELUDE.size + _CHECKSUM.size

# By a header's type number; 0 and 1 are true and false, 6 and 7 are bytes and text with a length
# prefix, 9 is a UUID.
_FIXED: Mapping[int, Struct] = {
    2: Struct("!b"),
    3: Struct("!h"),
    4: Struct("!i"),
    5: Struct("!q"),
    8: Struct("!q"),  # a time, in milliseconds
}
_LENGTH = Struct("!H")


class Malformed(Exception):
    """The bytes are not an event stream, or are corrupted."""


class EventStream:
    """Parses bytes into events."""

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the beginning of an event
        self._size = 0
        self._wanted = 0  # how much has to be held before parsing can continue
        self._block = b""
        self._headers: Mapping[str, Any] = {}

    @property
    def pending(self) -> bool:
        """Whether it is in the middle of an event."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[Mapping[str, Any], bytes]]:
        """Parse the next bytes, in slices of any size; iterate the result to its end.

        Yields:
            The headers, which must not be changed, and the payload of each event that these bytes
            complete.

        Raises:
            Malformed: Raised after the events before the fault; the stream can't be continued.
        """
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return
            data = b"".join(self._held)
            self._held.clear()
        at, end = 0, len(data)
        wanted = _PRELUDE.size
        while end - at >= _PRELUDE.size:
            total, length, checksum = _PRELUDE.unpack_from(data, at)
            if crc32(data[at : at + 8]) != checksum:
                raise Malformed("checksum of a prelude")
            size = total - length - _LEAST
            if length > HEADER_BYTES or not 0 <= size <= PAYLOAD_BYTES:
                raise Malformed("lengths")
            if end - at < total:
                wanted = total
                break
            last = at + total - 4
            # The message's checksum covers the prelude, so it continues from the prelude's.
            if crc32(data[at + 8 : last], checksum) != _CHECKSUM.unpack_from(data, last)[0]:
                raise Malformed("checksum of an event")
            payload = last - size
            block = data[at + 12 : payload]
            if block != self._block:
                self._headers = _headers(block)
                self._block = block
            at = last + 4
            yield self._headers, data[payload:last]
        if at < end:
            self._held.append(data[at:])
            self._size = end - at
            self._wanted = wanted


def _headers(block: bytes) -> dict[str, Any]:
    """Parse an event's headers. As in botocore, a value that is too short is truncated."""
    headers: dict[str, Any] = {}
    at, end = 0, len(block)
    try:
        while at < end:
            size = block[at]
            name = block[at + 1 : at + 1 + size].decode()
            if name in headers:
                raise Malformed("a header twice")
            at += 1 + size
            kind = block[at]
            at += 1
            value: Any
            if kind in _FIXED:
                value = _FIXED[kind].unpack_from(block, at)[0]
                at += _FIXED[kind].size
            elif kind in {6, 7}:
                size = _LENGTH.unpack_from(block, at)[0]
                value = block[at + 2 : at + 2 + size]
                if kind == 7:
                    value = value.decode()
                at += 2 + size
            elif kind == 9:
                value = block[at : at + 16]
                at += 16
            elif kind in {0, 1}:
                value = kind == 0
            else:
                raise Malformed("type of a header")
            headers[name] = value
    except (IndexError, StructError, UnicodeDecodeError):
        raise Malformed("headers") from None
    return headers
