"""Decides which pages may connect. Browsers send the page's origin; other clients need not.

The gateway's own pages are those at its public address. If none is configured, they are those whose
origin matches the request's scheme and host, but only if that host is this machine, or if a trusted
proxy reports that clients use it: otherwise a name that an attacker has pointed at this machine
(DNS rebinding) would count as the gateway's own.
"""

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

import structlog

from gateway.addresses import is_loopback
from gateway.logs import Seldom, printable
from gateway.transports.proxies import Client

log = structlog.stdlib.get_logger("gateway.connections")

REFUSED = "This page's origin may not connect; allow it in the route's allowed_origins."

_SHOWN = 200
"""Characters of an origin or a host that are logged."""
_LINES, _SECONDS = 10, 60.0
"""Refusals logged within this many seconds; each origin is logged once."""

_ORIGIN = re.compile(r"https?://[A-Za-z0-9._:\[\]-]{1,255}")
"""Origins that can be configured; others, such as ``null``, belong to no site."""


class Origins:
    """Decides by the ``Origin`` header, and logs refused origins for the operator.

    Args:
        allowed: Further origins by route, ``scheme://host[:port]``; without any route, only the
            gateway's own pages are allowed.
        public: Origin of the public address, if the gateway is behind a proxy.
        any_name: Whether the gateway's own pages may be at any name that leads to it: if clients
            have to authenticate, an attacker gains nothing by a name for it.
    """

    def __init__(
        self,
        allowed: Mapping[str, Collection[str]],
        *,
        public: str | None,
        any_name: bool = False,
    ) -> None:
        self._allowed = allowed
        self._anywhere = frozenset().union(*allowed.values())
        self._public = public
        self._any_name = any_name
        self._seldom = Seldom(_LINES, _SECONDS)

    def allow(
        self, origin: str | None, host: str | None, *, route: str | None, client: Client
    ) -> bool:
        """Return whether a request is allowed.

        Args:
            origin: Its ``Origin`` header; None if it has none, as with clients that aren't
                browsers.
            host: Its ``Host`` header.
            route: Name of the route that it asks for; None if any may be meant.
            client: The client.
        """
        allowed = self._anywhere if route is None else self._allowed.get(route, ())
        if origin is None or origin == self._public or origin in allowed:
            return True
        if self._is_own(origin, host, client):
            return True
        self._tell(origin, host or "", route or next(iter(self._allowed), ""), client)
        return False

    def _is_own(self, origin: str, host: str | None, client: Client) -> bool:
        try:
            page, own = urlsplit(origin), urlsplit(f"//{host}")
        except ValueError:  # not an address
            return False
        if client.scheme not in {None, page.scheme}:
            return False
        if client.host is not None:
            return page.netloc == client.host and self._public is None
        if page.netloc != own.netloc or own.hostname is None:
            return False
        return self._any_name or is_loopback(own.hostname)

    def _tell(self, origin: str, host: str, route: str, client: Client) -> None:
        shown = printable(origin, _SHOWN)
        unlogged = self._seldom.unsaid(f"{shown} {printable(route, _SHOWN)}")
        if unlogged is None:
            return
        if not self._allowed:
            hint = "only the gateway's own pages may use the operator's API"
        elif route not in self._allowed:
            hint = "there is no such route"
        elif _ORIGIN.fullmatch(origin):
            hint = (
                f'add "{shown}" to allowed_origins of [routes.{route}]; or, where it is the '
                f'gateway\'s own page behind a proxy, set public_url = "{shown}" in [server]'
            )
        else:
            hint = "this origin can't be allowed: the page is a local file, or sandboxed"
        log.warning(
            "origin refused",
            origin=shown,
            host=printable(client.host or host, _SHOWN),
            client=printable(client.address, _SHOWN),
            route=printable(route, _SHOWN),
            hint=hint,
            unlogged=unlogged,
        )
