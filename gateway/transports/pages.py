"""The chat page and its modules, with headers that let nothing else in.

The modules may be imported by pages of other origins: what they are is no secret, and whether such
a page may connect is another question.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.routing import Route as HttpRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
)

_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS]

SHARED = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
"""Headers of what pages of other origins may load."""


class SecurityHeaders:
    """Adds `HEADERS` to every HTTP response, where it has not its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name for name, _ in given}
                given += [header for header in _HEADERS if header[0] not in names]
                message = {**message, "headers": given}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Files(StaticFiles):
    """Static files, whose modules are `SHARED`."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """See Starlette."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        if os.fspath(full_path).endswith(".js"):
            response.headers.update(SHARED)
        return response


def directory() -> Path:
    """Where the page's files are: in the package once installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "static"
    return installed if installed.is_dir() else package.parent / "static"


def pages(routes: list[str]) -> list[BaseRoute]:
    """The page at ``/``, its files under ``/static``, and the routes that it offers.

    Args:
        routes: Their names, the default one first.
    """
    files = directory()

    async def index(_request: object) -> Response:
        return FileResponse(files / "index.html")

    async def names(_request: object) -> Response:
        return JSONResponse({"routes": routes, "default": routes[0]})

    return [
        HttpRoute("/", index),
        HttpRoute("/routes.json", names),
        Mount("/static", Files(directory=files)),
    ]
