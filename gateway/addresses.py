"""Which addresses are this machine's own."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own and no other's."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
