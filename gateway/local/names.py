"""Protects this server, whose keys are public, from web pages.

A page can send requests to this machine in two ways, both of which show: by an address of this
machine, with a foreign origin; or by a host name of its own that resolves to this machine (DNS
rebinding), with a foreign ``Host``.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPagesOnly:
    """Refuses a ``Host`` that is not this machine with 421, and a foreign ``Origin`` with 403."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not _is_loopback(host):
            text = "This server answers to localhost and to loopback addresses alone."
            await JSONResponse({"message": text}, 421)(scope, receive, send)
        elif origin not in {None, f"{scope['scheme']}://{host}"}:
            text = "This server takes no requests of web pages."
            await JSONResponse({"message": text}, 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
