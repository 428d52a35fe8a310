"""AWS's own messages, as far as a log may have them.

They say what an operator has to know: which endpoint is not found, who may not do what. But some
quote the call, and so what a client wrote, the session's id or a token: a value that is not what
the API model has, a name that there is none of, all headers where the signature is wrong.
"""

import html
import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from urllib.parse import unquote

from gateway.logs import printable

MOST = 500
"""How many characters are kept."""

_LEAST, _HEAD = 8, 32
"""So much of a value, if it is longer, is taken for it; no more than that is looked for."""

_ROUNDS = 4
"""How often escapes may have been escaped themselves."""

_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos);")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)

_CONSTRAINT = "failed to satisfy constraint"
_FIELD = re.compile(rf"at '(\w+)' {_CONSTRAINT}")

# The paragraphs that follow "The request signature we calculated does not match" hold all that was
# signed; other messages about signatures quote the header.
_SIGNED = re.compile(r"\r|\n|the canonical string|the string-to-sign|authorization=", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z.]{0,64}|[1-5][0-9]{2}")
_KEY_ID = re.compile(r"\bA[KS]IA[A-Z0-9]{12,}")


def loggable(message: str, sent: Mapping[str, str], own: Iterable[str] = ()) -> str:
    """What is left of a message.

    Args:
        message: AWS's.
        sent: The call's parameters, but for its body.
        own: Values among them that are the route's.
    """
    if _CONSTRAINT in message:
        # Any of the rest may be a value, in whatever it has been wrapped. The names are the API's.
        named = {field[0].upper() + field[1:]: field for field in _FIELD.findall(_plain(message))}
        fields = [field for name, field in sorted(named.items()) if name in sent]
        return f"Value at {', '.join(fields) or '…'} {_CONSTRAINT}"
    text = _KEY_ID.sub("…", _unsigned(_plain(_unsigned(message))))
    quotable = {_spaced(_plain(value)) for value in {*sent.values()} - {*own}}
    for value in sorted(quotable, key=len, reverse=True):
        text = _without(text, value)
    return printable(text, MOST)


def error_name(text: str) -> str:
    """What AWS calls an error. What answers in its place may quote a call there."""
    return text if _NAME.fullmatch(text) else "…"


def _unsigned(text: str) -> str:
    return _SIGNED.split(text, maxsplit=1)[0].strip()


def _plain(text: str) -> str:
    """A text in one line, without the escapes of addresses, HTML and JSON."""
    for _ in range(_ROUNDS):
        before = text
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), unquote(text))
        text = _ESCAPE.sub(
            lambda found: chr(int(found[1], 16)) if found[1] else _of(found[2]), text
        )
        if text == before:
            break
    return " ".join(text.split())


def _of(letter: str) -> str:
    return {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(letter, letter)


def _spaced(text: str) -> str:
    """A text in which the ``+`` of a form is a space, as it may be."""
    return re.sub(r"[ +]+", " ", text).strip()


def _without(text: str, value: str) -> str:
    """A text that does not quote that value, nor 8 characters of it that it begins with."""
    spaced, head = _spaced(text), value[:_HEAD]
    least = head[:_LEAST]
    if not least or least.lower() not in spaced.lower():
        return text
    kept, at = "", 0
    for found in re.finditer(re.escape(least), spaced, re.IGNORECASE):
        start = found.start()
        end = start + _alike(spaced[start:], head)
        if end - start == _HEAD < len(value):
            return f"{kept}{spaced[at:start]}…"
        # One letter is no quotation in the middle of a word.
        while end >= found.end() and _in_a_word(spaced, end):
            end -= 1
        if start >= at and end >= found.end() and not _in_a_word(spaced, start):
            kept, at = f"{kept}{spaced[at:start]}…", end
    return kept + spaced[at:]


def _alike(text: str, head: str) -> int:
    """How many characters a text begins with that another does."""
    pairs = zip(text.lower(), head.lower(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _in_a_word(text: str, at: int) -> bool:
    return text[:at][-1:].isalnum() and text[at : at + 1].isalnum()
