"""Extracts credentials from a handshake or a request; never from its URL, which is logged."""

import base64
import binascii
from collections.abc import Sequence

from gateway.admission import Credentials

BEARER, TICKET = CREDENTIALS = ("bearer.", "ticket.")
"""Prefixes of offered subprotocols that are credentials. These are never echoed."""


def may_be_echoed(subprotocol: str) -> bool:
    """Return whether an offered subprotocol may be selected: credentials, in any case, may not."""
    return not subprotocol.lower().startswith(CREDENTIALS)


def credentials_of(authorization: str, offered: Sequence[str] = ()) -> Credentials:
    """Return the strongest credentials of a handshake or a request.

    Args:
        authorization: Its ``Authorization`` header; empty if it has none.
        offered: Subprotocols that a handshake offers.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return Credentials(token=token.strip())
    for protocol in offered:
        if protocol.startswith(BEARER):
            return Credentials(token=_decoded(protocol.removeprefix(BEARER)))
    for protocol in offered:
        if protocol.startswith(TICKET):
            return Credentials(ticket=protocol.removeprefix(TICKET))
    return Credentials()


def _decoded(text: str) -> str:
    """Decode unpadded base64url; a malformed token becomes an empty one, which is never valid."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
