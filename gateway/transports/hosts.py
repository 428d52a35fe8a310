"""Which names the gateway answers to, as long as it listens on this machine alone.

Nobody has to authenticate there, so a page whose name an attacker has pointed at this machine (DNS
rebinding) would read what the gateway's own pages do. Whether such a page may connect is decided by
its origin; and probes may call the gateway what they like.
"""

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.addresses import is_loopback

OPEN = ("/healthz", "/readyz", "/ws")
"""Paths that are answered under any name, with those below them."""

_BELOW = tuple(f"{each}/" for each in OPEN)

REFUSED = (
    "This gateway serves only this machine, and this is not one of its names. Open it at "
    "http://127.0.0.1 or http://localhost, with its port; behind a proxy, set public_url in "
    "[server].\n"
)


class Hosts:
    """Answers requests whose ``Host`` is not this machine's own with 421.

    Args:
        app: What answers the others.
        origins: Further names, as origins: ``scheme://host[:port]``.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str] = ()) -> None:
        self._app = app
        self._known = {urlsplit(origin).netloc for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http" and not self._answers(scope):
            await PlainTextResponse(REFUSED, 421)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _answers(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) == 1 and (hosts[0] in self._known or _is_own(hosts[0])):
            return True
        path: str = scope["path"]
        # Browsers, which this is about, always send one.
        return not hosts or path in OPEN or path.startswith(_BELOW)


@lru_cache(maxsize=1_000)
def _is_own(host: str) -> bool:
    """Whether a ``Host`` is a name that this machine alone has."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
