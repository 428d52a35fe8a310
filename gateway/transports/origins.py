"""Which pages may connect. A browser sends the page's origin with every handshake; others need not.

A page of the gateway's own is one whose origin is the host that the handshake names, and only
where that host is this machine: a name that an attacker has pointed at this machine would
otherwise pass for the gateway's own.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from gateway.addresses import is_loopback


def is_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a handshake may go on.

    Args:
        origin: Its ``Origin`` header; None where there is none, as from clients that are no
            browsers.
        host: Its ``Host`` header.
        allowed: The route's further origins, ``scheme://host[:port]``.
    """
    if origin is None or origin in allowed:
        return True
    try:
        page, own = urlsplit(origin), urlsplit(f"//{host}")
        return page.netloc == own.netloc and own.hostname is not None and is_loopback(own.hostname)
    except ValueError:  # not an address
        return False
