"""``POST /v1/tickets``: what a browser shows when it connects, since it can set no header then."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.admission import Admission, Refused
from gateway.errors import ErrorCode
from gateway.session.dates import rfc3339
from gateway.transports.credentials import credentials_of
from gateway.transports.origins import REFUSED, Origins
from gateway.transports.problems import problem
from gateway.transports.proxies import Proxies


class TicketEndpoint:
    """Gives tickets to those who show a key or a token.

    Args:
        admission: Knows them.
        origins: Whose pages may ask.
        proxies: Finds out who asks.
    """

    def __init__(self, admission: Admission, *, origins: Origins, proxies: Proxies) -> None:
        self._admission = admission
        self._origins = origins
        self._proxies = proxies

    async def serve(self, request: Request) -> Response:
        """Answer one request."""
        headers, client = request.headers, self._proxies.client(request)
        origin = headers.get("origin")
        shared = {"Vary": "Origin"}
        if not self._origins.allow(origin, headers.get("host"), route=None, client=client):
            return problem(Refused(ErrorCode.FORBIDDEN, REFUSED), shared)
        if origin is not None:
            shared["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS":
            asked = {
                "Access-Control-Allow-Methods": "POST",
                "Access-Control-Allow-Headers": "Authorization",
                "Access-Control-Max-Age": "600",
            }
            return Response(status_code=204, headers=shared | asked)
        visitor = self._admission.arrive(client.address)
        try:
            await visitor.identify(credentials_of(request), route=None)
            ticket = await visitor.ticket()
        except Refused as refused:
            return problem(refused, shared)
        finally:
            visitor.release()
        content = {"ticket": ticket.value, "expires_at": rfc3339(ticket.expires_at)}
        return JSONResponse(content, 201, shared | {"Cache-Control": "no-store"})
