"""Serves the pages with strict security headers, and what they need to know to connect."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.logo import Logo
from gateway.transports.files import Files
from gateway.transports.offers import PageOffer

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # images in messages; so is sound in `media-src`
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = (
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"),
)

DOCUMENT_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)

PARTS = (b"text/javascript", b"text/css")
"""Content types that are never a document. They are most of a page's responses, and their content
is smaller than the headers of a document would be. A worker's script would need those."""


class SecurityHeaders:
    """Adds `HEADERS` to every HTTP response, and `DOCUMENT_HEADERS` to those that may be documents,
    unless the response has its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = dict(message.get("headers", ()))
                is_part = given.get(b"content-type", b"").startswith(PARTS)
                added = HEADERS if is_part else HEADERS + DOCUMENT_HEADERS
                missing = [header for header in added if header[0] not in given]
                message = {**message, "headers": [*message.get("headers", ()), *missing]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def directory() -> Path:
    """Return the directory of the pages: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "static"
    return installed if installed.is_dir() else package.parent / "static"


PAGES = ("index", "operator", "voice")
"""The pages: each is ``static/NAME.html`` at ``/NAME``; the first is at ``/``."""

VOICE = "voice"
"""Name of a route that has a page of its own, for a model that listens to sound."""

LOGO_PATH, ICON_PATH = "logo", "static/icon.svg"

LOGO_HEADERS = {
    # If it is opened by itself, an SVG is a document of this origin.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"
}


def pages(offer: PageOffer, logo: Logo | None) -> list[BaseRoute]:
    """Return the routes of the pages, of their files under ``/static``, and of ``/page.json``.

    If a route is called ``voice``, there is a page for it at ``/voice``.

    Args:
        offer: Content of ``/page.json``.
        logo: The logo, if one is configured.
    """
    files = Files(directory())
    told = msgspec.json.encode(offer)

    def page(name: str) -> HttpRoute:
        async def serve(request: Request) -> Response:
            return await files.get_response(f"{name}.html", request.scope)

        return HttpRoute("/" if name == PAGES[0] else f"/{name}", serve)

    async def about(_request: Request) -> Response:
        return Response(told, media_type="application/json")

    heard = any(route.name == VOICE for route in offer.routes)
    shown = [name for name in PAGES if name != VOICE or heard]
    paths = [*map(page, shown), HttpRoute("/page.json", about)]
    if logo is not None:

        async def picture(request: Request) -> Response:
            headers = {**LOGO_HEADERS, "ETag": logo.tag}
            response = Response(logo.content, 200, headers, logo.media_type)
            if files.is_not_modified(response.headers, request.headers):
                # These headers replace those that a cache has stored (RFC 9111, 3.2).
                return Response(None, 304, headers)
            return response

        paths.append(HttpRoute(f"/{LOGO_PATH}", picture))
    return [*paths, Mount("/static", files)]
