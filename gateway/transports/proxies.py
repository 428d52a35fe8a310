"""Who is asking, where proxies are in front: what they say, as far as they are trusted.

Each proxy adds what it has seen at the right of what it was sent, so that is read from the right,
for as long as it is a trusted proxy that says it: what is further left may be anybody's invention.
``Forwarded`` is RFC 7239's; ``X-Forwarded-For``, ``-Proto`` and ``-Host`` are older.
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
"""How many characters of a header are read, from its end."""

# Section 4 allows empty pairs, and wants values with a colon or a bracket to be quoted, which not
# everybody does.
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
    """Who has sent a request, and what it asked for.

    Attributes:
        address: Its IP address; empty where there is none.
        scheme: ``http`` or ``https``: the connection's or, behind trusted proxies, that by which
            the first of them was asked; None where they don't say.
        host: The ``Host`` header that the first trusted proxy was sent; None where none says.
    """

    address: str
    scheme: str | None = None
    host: str | None = None


class _Hop(NamedTuple):
    """What one proxy says of what it was sent."""

    address: Address | None = None
    scheme: str | None = None
    host: str | None = None


class Proxies:
    """Finds out who is asking.

    Args:
        trusted: The ranges of addresses that proxies have which are believed, such as
            ``10.0.0.0/8``; without any, nothing that a header says is.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = [ip_network(each) for each in trusted]

    def client_of(self, peer: str | None, headers: Headers, scheme: str = "http") -> Client:
        """Who has sent a request. This is the address that logs and limits go by.

        Where a header is not what it should be, the last address that can be relied on counts. So
        it does where ``Forwarded`` and ``X-Forwarded-For`` differ: a proxy that writes one of them
        has then passed on what a client wrote into the other.

        Args:
            peer: The address of the other side of the connection.
            headers: The request's.
            scheme: That of the connection: ``http``, ``https``, ``ws`` or ``wss``.
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
        """Who has sent a request or a handshake; see `client_of`."""
        peer, scheme = connection.scope["client"], connection.scope["scheme"]
        if not self._trusted:
            return Client(peer[0] if peer else "", _SCHEMES[scheme])
        return self.client_of(peer and peer[0], connection.headers, scheme)

    def trusts(self, address: str) -> bool:
        """Whether that is the address of a proxy which is believed."""
        found = _address(address)
        return found is not None and self._trusts(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _follow(self, address: Address, hops: Iterator[_Hop]) -> Client:
        scheme = host = None
        for hop in hops:  # said by the address before
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
    """The elements of ``Forwarded``, the last one first; one that is malformed says nothing."""
    for element in _from_the_right(text):
        pairs = _pairs(element)
        yield _hop(*(pairs.get(name, "") for name in ("for", "proto", "host")))


def _pairs(element: str) -> dict[str, str]:
    """What one says, by name; nothing where it is malformed."""
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
    """What is between commas that are not quoted.

    A quotation that a client has begun and not ended does not reach what a proxy has added.
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
    """The same of the older headers. What is in the same place from the right is of one proxy."""
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
    """The address of a node (RFC 7239, section 6); None where it is hidden or malformed."""
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
