"""``POST /v1/tickets``: what a browser shows when it connects, since it can set no header then."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admission import Visitor
from gateway.session.dates import rfc3339
from gateway.transports.drafts import json_of


class Ticket(msgspec.Struct, frozen=True):
    """What lets a browser connect once, as whoever has asked for it.

    Attributes:
        ticket: To be offered as the subprotocol ``ticket.TICKET``.
        expires_at: Until when (RFC 3339).
    """

    ticket: str
    expires_at: str

    def __repr__(self) -> str:
        return f"<Ticket until {self.expires_at}>"


async def ticket(_request: Request, visitor: Visitor) -> Response:
    """Give a ticket to somebody who has shown a key or a token."""
    given = await visitor.ticket()
    return json_of(Ticket(given.value, rfc3339(given.expires_at)), 201)
