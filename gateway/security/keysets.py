"""Public keys that tokens are verified with: a JWK set (RFC 7517) from a file or a URL."""

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
"""Seconds for which a fetched set is used without fetching it again."""

REFETCH_SECONDS = 60.0
"""Minimum seconds between fetches, however many unknown keys are asked for."""

RETRY_SECONDS = 5.0
"""The same while no set has been fetched yet."""

FETCH_SECONDS = 5.0
MAX_BYTES = 1_000_000
MAX_KEYS = 100


Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task that ends with the gateway."""


class KeysUnavailable(Exception):
    """No set of keys is available; the message says why."""


class KeySet(Protocol):
    """A source of keys by id and algorithm."""

    async def get(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """Return the keys that may have signed a token with this algorithm.

        Args:
            key_id: The token's ``kid``; None if it has none, which matches all keys.
            algorithm: As in RFC 7518, 3.1, such as ``ES256``.

        Raises:
            KeysUnavailable: The keys can't be read or fetched.
        """
        ...


class Jwks:
    """A parsed JWK set.

    Args:
        document: The set, as decoded from JSON.

    Raises:
        ValueError: It is not a JWK set, or has no usable key.
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
        # pyjwt does not accept a key whose type does not fit its algorithm.
        return [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and key_id in {None, key.key_id}
        ]


def _usable(each: Any) -> jwt.PyJWK | None:
    """Parse a public signature key; others are ignored, as RFC 7517, 5 recommends."""
    if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") == "oct":
        return None
    operations = each.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if "d" in each or not isinstance(each.get("kid"), str | None):
        return None  # a private key, or an id that no token can name
    try:
        return jwt.PyJWK(each)
    except Exception:  # noqa: BLE001 - whatever it is, this key can't be used
        return None


class FileKeys:
    """The keys of a file, which is read at startup and at each reload.

    Args:
        path: The file.

    Raises:
        KeysUnavailable: It can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reload()

    def reload(self) -> None:
        """Read the file again; on an error, the previous keys stay in use.

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
    """The keys at a URL.

    They are fetched on first use, when they are older than `FRESH_SECONDS`, and when a token names
    an unknown key, as after a rotation; for that, at most once a minute. If a fetch fails, the
    previous keys stay in use.

    Args:
        url: The URL.
        spawn: Runs a fetch as a task of its own: others wait for it too, so no caller may cancel
            it.
        clock: Returns seconds of a monotonic clock.
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
        self._next = float("-inf")  # earliest time of the next fetch
        self._stale = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """See `KeySet.get`."""
        keys = [] if self._keys is None else self._keys.find(key_id, algorithm)
        now = self._clock()
        if not keys or now >= self._stale:
            fetching = self._fetch()
            # Use a slightly stale set while the next one is being fetched.
            if fetching is not None and (not keys or now >= self._stale + FRESH_SECONDS):
                await asyncio.shield(fetching)
                keys = [] if self._keys is None else self._keys.find(key_id, algorithm)
        if self._keys is None:
            raise KeysUnavailable("the keys can't be fetched")
        return keys

    def _fetch(self) -> asyncio.Task[None] | None:
        """Return the pending fetch, or start one; None if it is too early for another one."""
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
    """Fetch the keys at a URL.

    Raises:
        KeysUnavailable: It can't be reached, or returns no usable keys.
    """
    try:
        return Jwks(json.loads(await _read(url)))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise KeysUnavailable(printable(why, 200)) from None


async def _read(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    # To a proxy, a loopback address is the proxy's own machine.
    proxies = not is_loopback(urlsplit(url).hostname or "")
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=proxies) as session,
        # No redirects: the keys come from the configured URL and nowhere else.
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
