"""Redacts AWS's error messages for the log.

They contain what an operator needs: which endpoint was not found, which permission is missing. But
some quote the call, and so a client's text, the session's id or a token: an invalid value, an
unknown name, or all headers if the signature is wrong.
"""

import html
import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from urllib.parse import unquote

from gateway.logs import printable

MOST = 500
"""The longest message that is kept, in characters."""

_LEAST, _HEAD = 8, 32
"""The least and the most characters of a value's beginning that are searched for."""

_ROUNDS = 4
"""How many levels of escaping are undone."""

_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos);")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)

_CONSTRAINT = "failed to satisfy constraint"
_FIELD = re.compile(rf"at '(\w+)' {_CONSTRAINT}")

# The paragraphs after "The request signature we calculated does not match" quote everything that
# was signed; other messages about signatures quote the header.
_SIGNED = re.compile(r"\r|\n|the canonical string|the string-to-sign|authorization=", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z.]{0,64}|[1-5][0-9]{2}")
_KEY_ID = re.compile(r"\bA[KS]IA[A-Z0-9]{12,}")


def loggable(message: str, sent: Mapping[str, str], own: Iterable[str] = ()) -> str:
    """Return a message without what it quotes of the call.

    Args:
        message: AWS's message.
        sent: The call's parameters, without its body.
        own: Values among them that come from the route, and need no redaction.
    """
    if _CONSTRAINT in message:
        # Any other part may be a value, in any escaping. The names are the API's.
        named = {field[0].upper() + field[1:]: field for field in _FIELD.findall(_plain(message))}
        fields = [field for name, field in sorted(named.items()) if name in sent]
        return f"Value at {', '.join(fields) or '…'} {_CONSTRAINT}"
    text = _KEY_ID.sub("…", _unsigned(_plain(_unsigned(message))))
    quotable = {_spaced(_plain(value)) for value in {*sent.values()} - {*own}}
    for value in sorted(quotable, key=len, reverse=True):
        text = _without(text, value)
    return printable(text, MOST)


def error_name(text: str) -> str:
    """Return AWS's error code, redacted: another server may quote the call in it."""
    return text if _NAME.fullmatch(text) else "…"


def _unsigned(text: str) -> str:
    return _SIGNED.split(text, maxsplit=1)[0].strip()


def _plain(text: str) -> str:
    """Join lines, and undo the escapes of URLs, HTML and JSON."""
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
    """Replace ``+`` by a space, which it may be in a form."""
    return re.sub(r"[ +]+", " ", text).strip()


def _without(text: str, value: str) -> str:
    """Remove quotations of a value, also of only its first 8 characters or more."""
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
        # A single letter within a word is not part of the quotation.
        while end >= found.end() and _in_a_word(spaced, end):
            end -= 1
        if start >= at and end >= found.end() and not _in_a_word(spaced, start):
            kept, at = f"{kept}{spaced[at:start]}…", end
    return kept + spaced[at:]


def _alike(text: str, head: str) -> int:
    """Return the length of the common prefix."""
    pairs = zip(text.lower(), head.lower(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _in_a_word(text: str, at: int) -> bool:
    return text[:at][-1:].isalnum() and text[at : at + 1].isalnum()
