"""Restricts host names while the gateway listens on loopback only.

No authentication is required there, so a page at a name that an attacker has pointed at this
machine (DNS rebinding) could read what the gateway's own pages do. WebSockets are protected by
their origin, and probes may use any name.
"""

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.addresses import is_loopback

OPEN = ("/healthz", "/readyz", "/ws")
"""Paths that are served under any name, with the paths below them."""

_BELOW = tuple(f"{each}/" for each in OPEN)

REFUSED = (
    "This gateway serves only this machine, and this is not one of its names. Open it at "
    "http://127.0.0.1 or http://localhost, with its port; behind a proxy, set public_url in "
    "[server].\n"
)


class Hosts:
    """Responds with 421 to requests whose ``Host`` is not one of this machine's own names.

    Args:
        app: Application for all other requests.
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
        # Browsers, the only clients this is about, always send a Host.
        return not hosts or path in OPEN or path.startswith(_BELOW)


@lru_cache(maxsize=1_000)
def _is_own(host: str) -> bool:
    """Return whether a ``Host`` is a loopback name."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
