"""Secrets that tests plant, and the look for them where none may be.

What is registered here is looked for in everything that each process of the tests has written, when
it ends (`tests.support.processes`).
"""

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

PIECE = 16
"""A piece of a secret this long counts as the secret; what is shorter could be there by chance."""

_pieces: dict[str, str] = {}
"""What each piece is of."""


def register(secret: str, what: str) -> str:
    """Look for a secret from now on; returns it."""
    assert len(secret) >= PIECE, what
    for form in _forms(secret):
        for piece in _cut(form):
            _pieces[piece] = what
    return secret


def plant(what: str) -> str:
    """A new secret, registered; with letters that JSON, HTML and addresses may write otherwise."""
    return register(f"{secrets.token_hex(12)}/+{secrets.token_hex(12)}", what)


@contextmanager
def planted(what: str) -> Iterator[str]:
    """A secret that is looked for in this context alone."""
    secret = plant(what)
    try:
        yield secret
    finally:
        for form in _forms(secret):
            for piece in _cut(form):
                _pieces.pop(piece, None)


def found(text: str) -> set[str]:
    """What is in a text that may not be, in whichever form it is."""
    plain = unquote(text.replace("\\/", "/"))
    texts = (text, plain) if plain != text else (text,)
    windows = {each[at : at + PIECE] for each in texts for at in range(len(each) - PIECE + 1)}
    return {_pieces[piece] for piece in windows & _pieces.keys()}


def check(text: str) -> None:
    """Fail where there is a secret in it."""
    there = [
        f"{', '.join(sorted(what))}: {line}" for line in text.splitlines() if (what := found(line))
    ]
    assert not there, "\n".join(["written, and may not be", *there])


def _forms(secret: str) -> Iterator[str]:
    """As it is, in hexadecimal, and in base64 wherever in it it begins."""
    data = secret.encode()
    yield secret
    yield data.hex()
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(before) + data).decode()
        whole = encoded[shared : len(encoded) - 4 * encoded.endswith("=")]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _cut(text: str) -> Iterator[str]:
    """Pieces, one of which is in any part of the text that is half as long again."""
    for start in range(0, len(text) - PIECE + 1, PIECE // 2):
        yield text[start : start + PIECE]
