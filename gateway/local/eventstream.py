"""Amazon's event stream encoding, ``application/vnd.amazon.eventstream``.

A message consists of a prelude (the lengths of the message and of its headers, and a CRC32 of
both), headers, payload, and a CRC32 of everything before it; numbers are big-endian. A header is
the length of its name, the name, its type (7 for a string), the length of its value and the value.
"""

import struct
import zlib
from collections.abc import Mapping

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode a message, with its two checksums."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    # 16 bytes: the prelude's three numbers and the last checksum.
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    checked = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return checked + struct.pack("!I", zlib.crc32(checked))


def payload_part(payload: bytes) -> bytes:
    """Encode the event ``PayloadPart``: a slice of the reply's bytes."""
    headers = {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    return message(headers, payload)


def exception(kind: str, body: bytes) -> bytes:
    """Encode an exception such as ``ModelStreamError``, with its members in JSON."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return message(headers, body)


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING, len(text)) + text
