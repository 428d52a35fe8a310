"""Addresses: which are this machine's own, and where a gateway's WebSocket is."""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from types import MappingProxyType
from urllib.parse import quote, urlsplit, urlunsplit

SCHEMES: Mapping[str, str] = MappingProxyType(
    {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
)


@lru_cache(maxsize=1_000)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own and no other's."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=10_000)
def network_of(host: str, bits: int = 64) -> str:
    """What one customer of a network has: an IPv4 address, or the first bits of an IPv6 one.

    Args:
        host: The address; what is none is its own network.
        bits: 64, which are had by the least of customers; an organisation has the first 48.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address) or address.is_loopback:
        return host
    return str(address.ipv4_mapped or ip_network((address, bits), strict=False))


def origin_of(url: str) -> str:
    """The origin of the pages at an address of ``http`` or ``https``, as browsers write it."""
    parts = urlsplit(url)
    host, default = parts.hostname or "", {"http": 80, "https": 443}[parts.scheme]
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port in {None, default} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def without_password(address: str) -> str:
    """The address as an error may repeat it, whether or not it is one.

    A password is taken to end at the last ``@``: who forgets to percent-encode it has others in it.
    """
    return re.sub(r"(?is)\A([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", address)


def websocket_url(address: str, route: str | None = None) -> str:
    """The WebSocket of a gateway's route, from what people know: where its page is, say.

    ``/ws`` is added to an address that has no path, and to one of ``http`` or ``https`` whose path
    does not end in ``/ws`` or ``/ws/ROUTE``: that is a prefix which a proxy puts before all paths.

    Args:
        address: Of the gateway, or of one of its WebSockets.
        route: Its name; the default one, or the address's own, unless given.

    Raises:
        ValueError: The address is none of a gateway, or names another route.
    """
    shown = without_password(address)
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # its text may have parts of the password
        raise ValueError(f"{shown}: the host or the port is not valid") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        guess = "" if "://" in address else f", such as http://{shown}"
        raise ValueError(f"{shown}: a gateway's address begins with http:// or https://{guess}")
    path = parts.path.rstrip("/")
    *_, last_but_one, last = ["", *path.split("/")]
    named = last if last_but_one == "ws" else None
    if named is None and last != "ws" and (not path or parts.scheme.startswith("http")):
        path += "/ws"
    if route is not None:
        if named not in {None, route}:
            raise ValueError(f"{shown}: this is the route {named}, and not {route}")
        if named is None:
            path += f"/{quote(route, safe='')}"
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))
