"""The keys that let a client come back to its session: kept hashed, and new at each return."""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Self


class ResumeKeys:
    """The keys that a session takes.

    The answer that carries a new key may be lost with its connection. So the key that the client
    has shown stays good until it has said something over the new connection.

    Args:
        hashes: Of those that are good.
    """

    __slots__ = ("_good",)

    def __init__(self, hashes: Iterable[bytes]) -> None:
        self._good = list(hashes)

    @classmethod
    def first(cls, key: str) -> Self:
        """The keys of a session that begins with this one."""
        return cls([_hashed(key)])

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """What is kept of those that are good."""
        return tuple(self._good)

    def accepts(self, key: str) -> bool:
        """Whether the key is good; takes as long for one that is nearly right."""
        shown = _hashed(key)
        return any([compare_digest(good, shown) for good in self._good])  # noqa: C419 - all of them

    def rotate(self, shown: str, new: str) -> None:
        """Hand out a new key to a client that has shown a good one."""
        self._good = [_hashed(shown), _hashed(new)]

    def confirm(self) -> None:
        """The client has the newest key: the one before it dies."""
        del self._good[:-1]


def _hashed(key: str) -> bytes:
    return sha256(key.encode(errors="surrogatepass")).digest()
