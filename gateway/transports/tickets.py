"""``POST /v1/tickets``: browsers connect with tickets, since they can't set headers then."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admission import Visitor
from gateway.session.dates import rfc3339
from gateway.transports.drafts import json_of


class Ticket(msgspec.Struct, frozen=True):
    """Lets a browser connect once, as the client that has requested it.

    Attributes:
        ticket: Offer it as the subprotocol ``ticket.TICKET``.
        expires_at: When it expires (RFC 3339).
    """

    ticket: str
    expires_at: str

    def __repr__(self) -> str:
        return f"<Ticket until {self.expires_at}>"


async def ticket(_request: Request, visitor: Visitor) -> Response:
    """Issue a ticket to an authenticated client."""
    given = await visitor.ticket()
    return json_of(Ticket(given.value, rfc3339(given.expires_at)), 201)
