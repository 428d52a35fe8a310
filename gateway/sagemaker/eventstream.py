"""``application/vnd.amazon.eventstream``, taken apart as it comes. It does no I/O.

An event is a prelude (the length of it all, the length of its headers, a checksum of the two),
headers, a payload, and a checksum of everything before it; numbers are big-endian, checksums
CRC-32. The parts of a reply have the same headers over and over, so those are read once.
"""

from collections.abc import Iterator, Mapping
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any
from zlib import crc32

HEADER_BYTES = 131_072
"""The largest headers of an event, as botocore has it."""
PAYLOAD_BYTES = 25_165_824
"""The largest payload of an event, likewise."""

_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_LEAST = _PRELUDE.size + _CHECKSUM.size

# By the number of a header's type; 0 and 1 are true and false, 6 and 7 bytes and text that say how
# long they are, 9 is a UUID.
_FIXED: Mapping[int, Struct] = {
    2: Struct("!b"),
    3: Struct("!h"),
    4: Struct("!i"),
    5: Struct("!q"),
    8: Struct("!q"),  # a time, in milliseconds
}
_LENGTH = Struct("!H")


class Malformed(Exception):
    """The bytes are no event stream, or not what was sent."""


class EventStream:
    """Takes bytes and gives events."""

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the beginning of an event
        self._size = 0
        self._wanted = 0  # how much has to be held before there is more to be seen
        self._block = b""
        self._headers: Mapping[str, Any] = {}

    @property
    def pending(self) -> bool:
        """Whether it is in the middle of an event."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[Mapping[str, Any], bytes]]:
        """Take the next bytes, however they are cut; to be iterated to its end.

        Yields:
            The headers, which are to be left as they are, and the payload of each event that is
            whole with these bytes.

        Raises:
            Malformed: After the events before the fault; there is nothing more to be had then.
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
            # The prelude's checksum is the checksum of what is in front of it.
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
    """An event's headers. Like botocore's, a value that is too short is what there is of it."""
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
