"""Signature Version 4, only for a POST without a query.

Source: AWS's "Create a signed AWS API request"; the signatures are the same as botocore's.
"""

import hmac
from hashlib import sha256
from time import gmtime, strftime
from typing import Protocol

ALGORITHM = "AWS4-HMAC-SHA256"

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class Keys(Protocol):
    """Credentials; botocore's frozen credentials."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...


class Signer:
    """Signs for one region and service. The derived key is valid for a day, and cached.

    Args:
        region: The region of the scope.
        service: The service of the scope.
    """

    def __init__(self, region: str, service: str) -> None:
        self._region = region
        self._service = service
        self._scope = ""
        self._made_of: tuple[str, str] | None = None
        self._inner = self._outer = sha256()
        self._second = -1
        self._time = ""

    def time(self, now: float) -> str:
        """Return ``X-Amz-Date``.

        Args:
            now: The time in seconds since the epoch.
        """
        second = int(now)
        if second != self._second:
            self._time = strftime("%Y%m%dT%H%M%SZ", gmtime(second))
            self._second = second
        return self._time

    def authorization(self, keys: Keys, time: str, names: str, canonical_request: str) -> str:
        """Return ``Authorization``.

        Args:
            keys: The credentials.
            time: ``X-Amz-Date``.
            names: The names of the signed headers, as in the canonical request.
            canonical_request: The canonical request of the specification.
        """
        day = time[:8]
        secret = keys.secret_key
        if self._made_of != (secret, day):
            self._scope = f"{day}/{self._region}/{self._service}/aws4_request"
            key = _derived(secret, day, self._region, self._service).ljust(64, b"\0")
            # The part of HMAC (RFC 2104) that doesn't depend on the message, since it is expensive.
            self._inner = sha256(key.translate(_INNER))
            self._outer = sha256(key.translate(_OUTER))
            self._made_of = (secret, day)
        scope = self._scope
        hashed = sha256(canonical_request.encode()).hexdigest()
        text = f"{ALGORITHM}\n{time}\n{scope}\n{hashed}"
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        signature = outer.hexdigest()
        return (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )


def _derived(secret: str, *scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (*scope, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
