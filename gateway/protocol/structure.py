"""Bounds how many values a client's MessagePack or a model's JSON has, before any of it is built.

An empty map takes one byte to send and hundreds to keep; arrays as keys of a map can be chosen so
that their hashes collide, and each is then compared with all others. Bytes that are passed on
without being decoded need no such bound.
"""

from itertools import repeat

MAX_VALUES = 100_000
"""Containers, keys and scalars in one body: at 40 ms at most, others hardly notice."""

_PIECE = 262_144
"""Bytes that are checked at a time, so that large bodies can be refused early."""

_FLOAT_32, _FLOAT_64 = 0xCA, 0xCB
_STR_8, _STR_32 = 0xD9, 0xDB
_MAP_16 = 0xDE


def _size(first: int) -> int:
    if first <= 0x7F or first >= 0xE0 or first in {0xC0, 0xC2, 0xC3}:  # an integer, nil, a bool
        return 1
    if 0xA0 <= first <= 0xBF:  # a short string
        return 1 + (first & 0x1F)
    return {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.get(first, 0)


# By the first byte of a value: its total size, or 0 if the byte does not determine it; whether it
# is a string; and the size of the length field that follows.
_SIZES = bytes(map(_size, range(256)))
_STRINGS = bytes(0xA0 <= first <= 0xBF or _STR_8 <= first <= _STR_32 for first in range(256))
_WIDTHS = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


class NoJsonForm(Exception):
    """A value can't be represented in JSON."""


class TooManyValues(Exception):
    """A value has more than `MAX_VALUES` values."""


def check_packed(packed: bytes) -> None:
    """Check that a MessagePack value has a JSON form, and not too many values.

    Maps with keys other than strings, binary data, extensions, infinities and NaN have no JSON
    form.

    Args:
        packed: One well-formed value, and nothing after it.

    Raises:
        NoJsonForm: It has no JSON form.
        TooManyValues: It has too many values.
    """
    at, left, in_map = 0, 1, False  # values missing in this container; of a map, keys included
    around: list[tuple[int, bool]] = []  # the same for the containers around it
    for _ in repeat(None, MAX_VALUES):
        first = packed[at]
        if in_map and not left & 1 and not _STRINGS[first]:
            raise NoJsonForm
        left -= 1
        if size := _SIZES[first]:
            at += size
        elif first >= _STR_8:
            begin, width = at + 1, _WIDTHS[first]
            at = begin + width
            length = packed[begin] if width == 1 else int.from_bytes(packed[begin:at], "big")
            if first <= _STR_32:
                at += length
            else:
                around.append((left, in_map))
                in_map = first >= _MAP_16
                left = length << in_map
        elif first <= 0x9F:  # a short map or array
            around.append((left, in_map))
            in_map = first <= 0x8F
            left = (first & 0x0F) << in_map
            at += 1
        else:
            at += _float_size(packed, at)
        while not left:
            if not around:
                return
            left, in_map = around.pop()
    raise TooManyValues


def _float_size(packed: bytes, at: int) -> int:
    """Return the size of the float at this offset."""
    first, high, low = packed[at : at + 3].ljust(3)
    if first == _FLOAT_64 and not (high & 0x7F == 0x7F and low >= 0xF0):
        return 9
    if first == _FLOAT_32 and not (high & 0x7F == 0x7F and low >= 0x80):
        return 5
    raise NoJsonForm


def may_be_built(body: bytes | memoryview) -> bool:
    """Whether JSON certainly does not have too many values.

    Counts commas, colons and opening brackets, one of which precedes each value; those inside
    strings are counted too.
    """
    if len(body) < MAX_VALUES:
        return True
    left = MAX_VALUES
    for at in range(0, len(body), _PIECE):
        piece = bytes(body[at : at + _PIECE])
        left -= len(piece) - len(piece.translate(None, b",:[{"))
        if left <= 0:
            return False
    return True
