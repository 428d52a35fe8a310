"""Determines the client of a request from what trusted proxies report.

Each proxy appends what it has seen to what it received. So headers are read from the right, as long
as each entry was added by a trusted proxy; anything further left may be forged. ``Forwarded`` is
specified by RFC 7239; ``X-Forwarded-For``, ``-Proto`` and ``-Host`` are older.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import zip_longest
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

Address = IPv4Address | IPv6Address

MOST = 4096
"""Characters of a header that are read, from its end."""

# Section 4 allows empty pairs, and requires values with a colon or a bracket to be quoted, which
# some proxies don't do.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = r"""[!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+|"(?:[^"\\]|\\.)*\""""
_PAIR = re.compile(rf"[ \t]*(?:({_NAME})=({_VALUE})[ \t]*)?(?:;|$)")
_PORT = r"(?::(?:\d{1,5}|_[\w.-]{1,64}))?"
_NODE = re.compile(
    rf"\[([0-9A-Fa-f:.]{{2,45}})\]{_PORT}|([0-9.]{{7,15}}){_PORT}|([0-9A-Fa-f:.]{{2,45}})"
)
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Client(NamedTuple):
    """The sender of a request, and what it requested.

    Attributes:
        address: Its IP address; empty if there is none.
        scheme: ``http`` or ``https``: the connection's or, behind trusted proxies, that of the
            request to the first of them; None if they don't report it.
        host: The ``Host`` header that the first trusted proxy received; None if none reports it.
    """

    address: str
    scheme: str | None = None
    host: str | None = None


class _Hop(NamedTuple):
    """What one proxy reports about the request that it received."""

    address: Address | None = None
    scheme: str | None = None
    host: str | None = None


class Proxies:
    """Determines the client of a request.

    Args:
        trusted: Address ranges of trusted proxies, such as ``10.0.0.0/8``. Without any, headers
            are ignored.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = [ip_network(each) for each in trusted]

    def client_of(self, peer: str | None, headers: Headers, scheme: str = "http") -> Client:
        """Return the client of a request, whose address is used in logs and limits.

        If a header is malformed, this is the last reliable address. The same holds if
        ``Forwarded`` and ``X-Forwarded-For`` differ: the proxy then writes one of them, and passed
        the other on as the client wrote it.

        Args:
            peer: Address of the connection's peer.
            headers: Headers of the request.
            scheme: Scheme of the connection: ``http``, ``https``, ``ws`` or ``wss``.
        """
        address = _address(peer or "") if self._trusted else None
        if address is None or not self._trusts(address):
            return Client(peer or "", _SCHEMES[scheme])
        standard = _joined(headers, "forwarded")
        older = [_joined(headers, f"x-forwarded-{name}") for name in ("for", "proto", "host")]
        if not standard:
            return self._follow(address, _older(*older))
        client = self._follow(address, _standard(standard))
        if older[0] and client.address != self._follow(address, _older(*older)).address:
            return Client(str(address))
        return client

    def client(self, connection: HTTPConnection) -> Client:
        """Return the client of a request or a handshake; see `client_of`."""
        peer, scheme = connection.scope["client"], connection.scope["scheme"]
        if not self._trusted:
            return Client(peer[0] if peer else "", _SCHEMES[scheme])
        return self.client_of(peer and peer[0], connection.headers, scheme)

    def trusts(self, address: str) -> bool:
        """Return whether this is the address of a trusted proxy."""
        found = _address(address)
        return found is not None and self._trusts(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _follow(self, address: Address, hops: Iterator[_Hop]) -> Client:
        scheme = host = None
        for hop in hops:  # each reported by `address`
            scheme, host = hop.scheme or scheme, hop.host or host
            if hop.address is None:
                break
            address = hop.address
            if not self._trusts(address):
                break
        return Client(str(address), scheme, host)


def _joined(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name))[-MOST:]


def _standard(text: str) -> Iterator[_Hop]:
    """Yield the elements of ``Forwarded``, the last one first; a malformed one as an empty hop."""
    for element in _from_the_right(text):
        pairs = _pairs(element)
        yield _hop(*(pairs.get(name, "") for name in ("for", "proto", "host")))


def _pairs(element: str) -> dict[str, str]:
    """Parse an element's pairs by name; return none if it is malformed."""
    pairs: dict[str, str] = {}
    at = 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return {}
        at = pair.end()
        name, value = pair[1], pair[2]
        if name is None:
            continue
        if name.lower() in pairs:
            return {}
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        pairs[name.lower()] = value
    return pairs


def _from_the_right(text: str) -> Iterator[str]:
    """Yield the parts between unquoted commas, the last one first.

    A quotation that a client has begun and not ended doesn't affect what proxies have appended.
    """
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"' and text[at - 1 : at] != "\\":
            quoted = not quoted
        elif text[at] == "," and not quoted:
            yield text[at + 1 : end]
            end = at
    yield text[:end]


def _older(addresses: str, schemes: str, hosts: str) -> Iterator[_Hop]:
    """The same for the older headers; values at the same place from the right are one proxy's."""
    lists = [text.split(",")[::-1] for text in (addresses, schemes, hosts)]
    for said in zip_longest(*lists, fillvalue=""):
        yield _hop(*(text.strip() for text in said))


def _hop(address: str, scheme: str, host: str) -> _Hop:
    return _Hop(
        _address(address),
        _SCHEMES.get(scheme.lower()),
        host if _HOST.fullmatch(host) else None,
    )


def _address(node: str) -> Address | None:
    """Parse a node's address (RFC 7239, section 6); None if it is obfuscated or malformed."""
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
