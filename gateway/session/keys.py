"""Resume keys, which let a client resume its session; each resume issues a new one.

Only the replica that the client is connected to knows a key. The session, the store and the
messages between replicas contain digests.
"""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest


def digest(key: str) -> bytes:
    """Return the digest of a key."""
    return sha256(key.encode(errors="surrogatepass")).digest()


class ResumeKeys:
    """The digests of a session's valid keys.

    The message that carries a new key may be lost with its connection. So the previous key stays
    valid until the client has sent something over the new connection.

    Args:
        digests: The digests of the valid keys.
    """

    __slots__ = ("_good",)

    def __init__(self, digests: Iterable[bytes]) -> None:
        self._good = list(digests)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The digests of the valid keys."""
        return tuple(self._good)

    def accepts(self, shown: bytes) -> bool:
        """Whether the key is valid, compared in constant time."""
        return any([compare_digest(good, shown) for good in self._good])  # noqa: C419 - all of them

    def rotate(self, shown: bytes, new: bytes) -> None:
        """Add a new key for a client that has presented a valid one."""
        self._good = [shown, new]

    def confirm(self) -> None:
        """Invalidate all keys but the newest, which the client has received."""
        del self._good[:-1]
