"""The keys that let a client come back to its session, a new one at each return.

A key is known where its client is. The session, the store and the letters between replicas have
digests alone.
"""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest


def digest(key: str) -> bytes:
    """What a session has of a key."""
    return sha256(key.encode(errors="surrogatepass")).digest()


class ResumeKeys:
    """The keys that a session takes, by their digests.

    The answer that carries a new key may be lost with its connection. So the key that the client
    has shown stays good until it has said something over the new connection.

    Args:
        digests: Of those that are good.
    """

    __slots__ = ("_good",)

    def __init__(self, digests: Iterable[bytes]) -> None:
        self._good = list(digests)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Of those that are good."""
        return tuple(self._good)

    def accepts(self, shown: bytes) -> bool:
        """Whether the key is good; takes as long for one that is nearly right."""
        return any([compare_digest(good, shown) for good in self._good])  # noqa: C419 - all of them

    def rotate(self, shown: bytes, new: bytes) -> None:
        """A client that has shown a good key is given a new one."""
        self._good = [shown, new]

    def confirm(self) -> None:
        """The client has the newest key: the one before it dies."""
        del self._good[:-1]
