"""How much a client's MessagePack or a model's JSON may ask to be built, found before any of it is.

To build an empty map takes a byte to ask for and some hundred to keep; arrays as the keys of a map
may be chosen to have equal hashes, and each is then compared with all others. What is passed on as
bytes, without being built, needs no such bound.
"""

from itertools import repeat

MAX_VALUES = 100_000
"""Containers, keys and scalars in one body: with 40 ms at most, others hardly feel it."""

_PIECE = 262_144
"""How much of a body is looked at before it is known whether more has to be."""

_FLOAT_32, _FLOAT_64 = 0xCA, 0xCB
_STR_8, _STR_32 = 0xD9, 0xDB
_MAP_16 = 0xDE


def _size(first: int) -> int:
    if first <= 0x7F or first >= 0xE0 or first in {0xC0, 0xC2, 0xC3}:  # an integer, nil, a bool
        return 1
    if 0xA0 <= first <= 0xBF:  # a short string
        return 1 + (first & 0x1F)
    return {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.get(first, 0)


# By the first byte of a value: how many bytes it has in all, 0 where that does not say; whether it
# is a string; and of how many bytes the length is that follows.
_SIZES = bytes(map(_size, range(256)))
_STRINGS = bytes(0xA0 <= first <= 0xBF or _STR_8 <= first <= _STR_32 for first in range(256))
_WIDTHS = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


class NoJsonForm(Exception):
    """JSON can't hold a value."""


class TooManyValues(Exception):
    """There are more than `MAX_VALUES`."""


def check_packed(packed: bytes) -> None:
    """See that a MessagePack value has a JSON form, and not too many values.

    It has none with a map whose keys are not strings, with binary data or an extension, or with an
    infinity or what is not a number.

    Args:
        packed: One well-formed value, and nothing after it.

    Raises:
        NoJsonForm: It has none.
        TooManyValues: It has too many.
    """
    at, left, in_map = 0, 1, False  # how many values the container lacks; of a map's, keys too
    around: list[tuple[int, bool]] = []  # the same of those that it is in
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
    """How many bytes the float has that begins there."""
    first, high, low = packed[at : at + 3].ljust(3)
    if first == _FLOAT_64 and not (high & 0x7F == 0x7F and low >= 0xF0):
        return 9
    if first == _FLOAT_32 and not (high & 0x7F == 0x7F and low >= 0x80):
        return 5
    raise NoJsonForm


def may_be_built(body: bytes | memoryview) -> bool:
    """Whether JSON has certainly not too many values.

    Before each is a comma, a colon, or what opens a container; those in strings count too.
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
