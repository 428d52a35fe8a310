"""The WebSocket endpoint: accepts handshakes, and selects the codec and the route."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import structs
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from gateway.admission import Admission, Refused
from gateway.errors import CloseCode, ErrorCode
from gateway.protocol.codecs import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_MSGPACK,
    Codec,
    JsonCodec,
    MsgpackCodec,
)
from gateway.route import Route
from gateway.sessions import Sessions
from gateway.tracecontext import carrier_of
from gateway.transports.coalescing import Coalescer
from gateway.transports.connection import WebSocketConnection
from gateway.transports.credentials import CREDENTIALS, credentials_of, may_be_echoed
from gateway.transports.open import Connections
from gateway.transports.origins import REFUSED, Origins
from gateway.transports.problems import problem
from gateway.transports.proxies import Client, Proxies

CODECS: Mapping[str, Codec] = MappingProxyType(
    {SUBPROTOCOL_JSON: JsonCodec(), SUBPROTOCOL_MSGPACK: MsgpackCodec()}
)


def _raw(route: Route) -> Route:
    """Return a route for raw connections: they can't resume, so nothing is kept for that.

    A frame is a body as it is, even if it is text and the route takes JSON.
    """
    policy = structs.replace(
        route.policy, resume_seconds=0.0, remembered_messages=0, json_only=False
    )
    return Route(policy, route.model, route.measures, route.tracer)


def _refusal() -> Response:
    """Return the refusal of a page's origin, which any page may read."""
    response = problem(Refused(ErrorCode.FORBIDDEN, REFUSED))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


class WebSocketEndpoint:
    """Accepts handshakes on ``/ws`` and ``/ws/{route}``.

    Args:
        sessions: All sessions.
        admission: Authenticates clients.
        origins: Decides which pages may connect.
        proxies: Determines a request's client.
        connections: Counts connections.
        open_timeout: Seconds within which a client has to send ``session.open``.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        admission: Admission,
        origins: Origins,
        proxies: Proxies,
        connections: Connections,
        open_timeout: float,
    ) -> None:
        self._sessions = sessions
        self._admission = admission
        self._raw_routes = {name: _raw(route) for name, route in sessions.routes.items()}
        self._origins = origins
        self._proxies = proxies
        self._connections = connections
        self._open_timeout = open_timeout
        self._coalescer = Coalescer(asyncio.get_running_loop())

    def _called(self, connection: HTTPConnection) -> tuple[str, Client, bool]:
        """Return the requested route's name, the client, and whether its origin may connect."""
        name = connection.path_params.get("route") or next(iter(self._sessions.routes))
        headers, client = connection.headers, self._proxies.client(connection)
        origin, host = headers.get("origin"), headers.get("host")
        return name, client, self._origins.allow(origin, host, route=name, client=client)

    async def explain(self, connection: HTTPConnection) -> Response:
        """Respond to HTTP requests on the same paths.

        Browsers don't tell a page why its handshake was refused. So the page can request the same
        URL over HTTP, and read the refusal whatever its origin.
        """
        *_, allowed = self._called(connection)
        if not allowed:
            return _refusal()
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}  # RFC 9110, 15.5.22
        return PlainTextResponse("Connect with a WebSocket.\n", 426, upgrade)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection."""
        routes = self._sessions.routes
        name, client, allowed = self._called(websocket)
        if not allowed:
            await websocket.send_denial_response(_refusal())
            return
        offered = [p for p in websocket.scope["subprotocols"] if not p.startswith(CREDENTIALS)]
        chosen = next((p for p in offered if p in CODECS), None)
        # Browsers fail a handshake that selects none of the offered subprotocols, and would not
        # report the close code. So an unknown one is selected, and the connection closed.
        await websocket.accept(chosen or next(filter(may_be_echoed, offered), None))
        if chosen is None and offered:
            await websocket.close(CloseCode.UNKNOWN_SUBPROTOCOL, "no common subprotocol")
        elif name not in routes:
            await websocket.close(CloseCode.UNKNOWN_ROUTE, ErrorCode.UNKNOWN_ROUTE)
        elif not self._connections.has_room():
            await websocket.close(CloseCode.UNAVAILABLE, ErrorCode.UNAVAILABLE)
        elif chosen is None:
            await self._connect(websocket, None, self._raw_routes[name], client)
        else:
            await self._connect(websocket, chosen, routes[name], client)

    async def _connect(
        self, websocket: WebSocket, subprotocol: str | None, route: Route, client: Client
    ) -> None:
        on_end = self._connections.opened(route.policy.route, subprotocol or "raw", client.address)
        codec = CODECS[subprotocol] if subprotocol else None
        connection = WebSocketConnection(
            websocket,
            codec,
            route,
            visitor=self._admission.arrive(client.address),
            on_end=on_end,
            coalescer=self._coalescer,
            carrier=carrier_of(websocket.headers),
        )
        shown = credentials_of(
            websocket.headers.get("authorization", ""), websocket.scope["subprotocols"]
        )
        await connection.run(self._sessions, shown, self._open_timeout)
