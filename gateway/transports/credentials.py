"""What a handshake or a request shows of who sends it. Never in its address, which logs keep."""

import base64
import binascii
from collections.abc import Sequence

from gateway.admission import Credentials

BEARER, TICKET = CREDENTIALS = ("bearer.", "ticket.")
"""How offered subprotocols begin that are credentials; they are never echoed."""


def may_be_echoed(subprotocol: str) -> bool:
    """Whether one that is offered can be picked: not what is meant as a credential, in any case."""
    return not subprotocol.lower().startswith(CREDENTIALS)


def credentials_of(authorization: str, offered: Sequence[str] = ()) -> Credentials:
    """What a handshake or a request shows, the strongest of it.

    Args:
        authorization: Its ``Authorization`` header; empty where there is none.
        offered: The subprotocols that a handshake offers.
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
    """A token from base64url without padding; from what is none, an empty one: nobody's."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
