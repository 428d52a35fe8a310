"""Network addresses: which ones are loopback, and the URL of a gateway's WebSocket."""

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
    """Whether a host name or address always refers to this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=10_000)
def network_of(host: str, bits: int = 64) -> str:
    """Return the network of one customer: an IPv4 address, or an IPv6 prefix.

    Args:
        host: The address; anything else is its own network.
        bits: Prefix length: even the smallest customers have a /64; organisations have a /48.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address) or address.is_loopback:
        return host
    return str(address.ipv4_mapped or ip_network((address, bits), strict=False))


def origin_of(url: str) -> str:
    """Return the origin of an ``http`` or ``https`` URL, as browsers serialise it."""
    parts = urlsplit(url)
    host, default = parts.hostname or "", {"http": 80, "https": 443}[parts.scheme]
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port in {None, default} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def without_password(address: str) -> str:
    """Remove a password from an address, which need not be valid, for an error message.

    A password is assumed to end at the last ``@``, since one that was not percent-encoded may have
    others in it.
    """
    return re.sub(r"(?is)\A([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", address)


def websocket_url(address: str, route: str | None = None) -> str:
    """Return the WebSocket URL of a gateway's route, given for example the URL of its page.

    ``/ws`` is appended to an address without a path, and to one of ``http`` or ``https`` whose path
    does not end in ``/ws`` or ``/ws/ROUTE``: that path is the prefix of a proxy.

    Args:
        address: Address of the gateway, or of one of its WebSockets.
        route: Name of the route; by default that of the address, or the gateway's default one.

    Raises:
        ValueError: The address is not a gateway's, or names another route.
    """
    shown = without_password(address)
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # its message may contain parts of the password
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
