"""The public keys that tokens are signed with: a JWK set (RFC 7517) of a file or of an address."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import jwt
import structlog

from gateway.addresses import is_loopback
from gateway.logs import printable

log = structlog.stdlib.get_logger("gateway.security")

FRESH_SECONDS = 600.0
"""For how long a set that was fetched is good without being asked for again."""

REFETCH_SECONDS = 60.0
"""How often it is fetched at most, however many keys it is asked for that it has not."""

RETRY_SECONDS = 5.0
"""The same while there is no set at all."""

FETCH_SECONDS = 5.0
MAX_BYTES = 1_000_000
MAX_KEYS = 100


Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts work that ends with the gateway."""


class KeysUnavailable(Exception):
    """There is no set of keys; the text says why."""


class KeySet(Protocol):
    """Has keys by their id and what they are for."""

    async def get(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """The keys that may have signed a token with this algorithm.

        Args:
            key_id: The one that it names; None where it names none, and could be of any.
            algorithm: As in RFC 7518, 3.1, such as ``ES256``.

        Raises:
            KeysUnavailable: That can't be told.
        """
        ...


class Jwks:
    """A JWK set as it was read.

    Args:
        document: The set.

    Raises:
        ValueError: It is none, or has no key that can be used.
    """

    def __init__(self, document: Any) -> None:
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise ValueError(f"expected a JWK set, of at most {MAX_KEYS} keys")
        self._keys = [key for key in map(_usable, listed) if key is not None]
        if not self._keys:
            raise ValueError("has no public key for signatures")

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """See `KeySet.get`."""
        # A key that is of no type for its algorithm is none to pyjwt.
        return [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and key_id in {None, key.key_id}
        ]


def _usable(each: Any) -> jwt.PyJWK | None:
    """A key for signatures that is public; others are passed over, as RFC 7517, 5 wants it."""
    if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") == "oct":
        return None
    operations = each.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if "d" in each or not isinstance(each.get("kid"), str | None):
        return None  # a private one, or one that no token can name
    try:
        return jwt.PyJWK(each)
    except Exception:  # noqa: BLE001 - whatever it is, this key can't be used
        return None


class FileKeys:
    """The keys of a file, which is read when the gateway starts, and at each reload.

    Args:
        path: The file.

    Raises:
        KeysUnavailable: It can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reload()

    def reload(self) -> None:
        """Read it again; where it can't be used, what was read before stays.

        Raises:
            KeysUnavailable: It can't be used.
        """
        try:
            self._keys = Jwks(json.loads(self._path.read_bytes()))
        except OSError as error:
            raise KeysUnavailable(f"{self._path}: {error.strerror}") from None
        except json.JSONDecodeError as error:
            why = f"{self._path}:{error.lineno}: not JSON: {error.msg}"
            raise KeysUnavailable(why) from None
        except (ValueError, RecursionError) as error:
            raise KeysUnavailable(f"{self._path}: {error}") from None

    async def get(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """See `KeySet.get`."""
        return self._keys.find(key_id, algorithm)


class FetchedKeys:
    """The keys of an address.

    They are fetched when they are first needed, again when they are old, and when there is a token
    of a key that they have not, as after a rotation; for that, not more than once a minute. Where
    they can't be fetched, the old ones are used on.

    Args:
        url: The address.
        spawn: Runs a fetch, which nobody's leaving may cancel: others wait for it too.
        clock: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        url: str,
        spawn: Spawn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._spawn = spawn
        self._clock = clock
        self._keys: Jwks | None = None
        self._next = float("-inf")  # when it may be fetched again
        self._stale = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """See `KeySet.get`."""
        keys = [] if self._keys is None else self._keys.find(key_id, algorithm)
        now = self._clock()
        if not keys or now >= self._stale:
            fetching = self._fetch()
            # One that is little older than it may be is good meanwhile.
            if fetching is not None and (not keys or now >= self._stale + FRESH_SECONDS):
                await asyncio.shield(fetching)
                keys = [] if self._keys is None else self._keys.find(key_id, algorithm)
        if self._keys is None:
            raise KeysUnavailable("the keys can't be fetched")
        return keys

    def _fetch(self) -> asyncio.Task[None] | None:
        """A fetch that is under way; None where it is too early for another one."""
        if self._fetching is None or self._fetching.done():
            now = self._clock()
            if now < self._next:
                return None
            self._next = now + (RETRY_SECONDS if self._keys is None else REFETCH_SECONDS)
            self._fetching = self._spawn(self._load())
        return self._fetching

    async def _load(self) -> None:
        try:
            self._keys = await fetch(self._url)
        except KeysUnavailable as error:
            log.warning("keys can't be fetched", url=self._url, why=str(error))
        else:
            now = self._clock()
            self._stale, self._next = now + FRESH_SECONDS, now + REFETCH_SECONDS


async def fetch(url: str) -> Jwks:
    """The keys of an address.

    Raises:
        KeysUnavailable: It can't be reached, or gives none.
    """
    try:
        return Jwks(json.loads(await _read(url)))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise KeysUnavailable(printable(why, 200)) from None


async def _read(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    # This machine's own address is another one to a proxy.
    proxies = not is_loopback(urlsplit(url).hostname or "")
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=proxies) as session,
        # Where it is said to be, and nowhere else.
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status != HTTPStatus.OK:
            raise ValueError(f"answered with status {response.status}")
        body = await response.content.read(MAX_BYTES + 1)
        while len(body) <= MAX_BYTES and not response.content.at_eof():
            body += await response.content.read(MAX_BYTES + 1 - len(body))
    if len(body) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES} bytes")
    return body
