"""Where WebSockets connect: which are taken, in which codec and to which route."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import structlog
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
from gateway.transports.origins import REFUSED, Origins
from gateway.transports.problems import problem
from gateway.transports.proxies import Client, Proxies

log = structlog.stdlib.get_logger("gateway.connections")

CODECS: Mapping[str, Codec] = MappingProxyType(
    {SUBPROTOCOL_JSON: JsonCodec(), SUBPROTOCOL_MSGPACK: MsgpackCodec()}
)


KNOWN_CODES = frozenset({*map(int, CloseCode), 1001, 1002, 1005, 1006, 1007})
"""The close codes that are counted each for itself: a client may send any from 3000 to 4999."""

OTHER_CODE = 0
"""All others."""


def _raw(route: Route) -> Route:
    """The same for raw connections: since none can come back, nothing is kept for when it does.

    A frame is a body as it stands, also where it is text and the route takes JSON.
    """
    policy = structs.replace(
        route.policy, resume_seconds=0.0, remembered_messages=0, json_only=False
    )
    return Route(policy, route.model, route.measures, route.tracer)


def _refusal() -> Response:
    """What any page may read: why it may not connect."""
    response = problem(Refused(ErrorCode.FORBIDDEN, REFUSED))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


class WebSocketEndpoint:
    """Takes handshakes on ``/ws`` and ``/ws/{route}``.

    Args:
        sessions: Where they lead to.
        admission: Lets their clients in.
        origins: Which pages may connect.
        proxies: Finds out who does.
        max_connections: How many there may be at once.
        open_timeout: Seconds within which a client has to send ``session.open``.

    Attributes:
        connections: How many there are, by route and subprotocol, "raw" for none.
        closed: How many have ended, by route and close code.
        turned_away: How many were more than there may be.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        admission: Admission,
        origins: Origins,
        proxies: Proxies,
        max_connections: int,
        open_timeout: float,
    ) -> None:
        self._sessions = sessions
        self._admission = admission
        self._raw_routes = {name: _raw(route) for name, route in sessions.routes.items()}
        self._origins = origins
        self._proxies = proxies
        self._max_connections = max_connections
        self._open_timeout = open_timeout
        self._loop = asyncio.get_running_loop()
        self._coalescer = Coalescer(self._loop)
        self.connections: Counter[tuple[str, str]] = Counter()
        self.closed: Counter[tuple[str, int]] = Counter()
        self.turned_away = self._connections = 0

    def _called(self, connection: HTTPConnection) -> tuple[str, Client, bool]:
        """The name of the route that is asked for, by whom, and whether its origin may connect."""
        name = connection.path_params.get("route") or next(iter(self._sessions.routes))
        headers, client = connection.headers, self._proxies.client(connection)
        origin, host = headers.get("origin"), headers.get("host")
        return name, client, self._origins.allow(origin, host, route=name, client=client)

    async def explain(self, connection: HTTPConnection) -> Response:
        """Answer what is no handshake, or one that is refused.

        A browser does not tell a page why its handshake was refused. So the page may ask for the
        same over HTTP, and read the refusal whatever its origin.
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
        # A browser takes a handshake for failed that picks none of those it offered, and would
        # not see the close code; so an unknown one is picked, to be closed at once.
        await websocket.accept(chosen or next(filter(may_be_echoed, offered), None))
        if chosen is None and offered:
            await websocket.close(CloseCode.UNKNOWN_SUBPROTOCOL, "no common subprotocol")
        elif name not in routes:
            await websocket.close(CloseCode.UNKNOWN_ROUTE, ErrorCode.UNKNOWN_ROUTE)
        elif self._connections >= self._max_connections:
            self.turned_away += 1
            await websocket.close(CloseCode.UNAVAILABLE, ErrorCode.UNAVAILABLE)
        elif chosen is None:
            await self._connect(websocket, None, self._raw_routes[name], client)
        else:
            await self._connect(websocket, chosen, routes[name], client)

    async def _connect(
        self, websocket: WebSocket, subprotocol: str | None, route: Route, client: Client
    ) -> None:
        self._connections += 1
        name, spoken, address = route.policy.route, subprotocol or "raw", client.address
        self.connections[name, spoken] += 1
        log.info(
            "connection opened",
            route=name,
            subprotocol=spoken,
            client=address,
            connections=self._connections,
        )
        codec = CODECS[subprotocol] if subprotocol else None
        on_end = partial(self._ended, name, spoken, address, since=self._loop.time())
        connection = WebSocketConnection(
            websocket,
            codec,
            route,
            visitor=self._admission.arrive(address),
            on_end=on_end,
            coalescer=self._coalescer,
            carrier=carrier_of(websocket.headers),
        )
        shown = credentials_of(
            websocket.headers.get("authorization", ""), websocket.scope["subprotocols"]
        )
        await connection.run(self._sessions, shown, self._open_timeout)

    def _ended(
        self,
        route: str,
        subprotocol: str,
        client: str,
        code: int,
        session: str | None,
        *,
        since: float,
    ) -> None:
        self._connections -= 1
        self.connections[route, subprotocol] -= 1
        self.closed[route, code if code in KNOWN_CODES else OTHER_CODE] += 1
        log.info(
            "connection closed",
            route=route,
            subprotocol=subprotocol,
            client=client,
            session=session,
            code=code,
            seconds=round(self._loop.time() - since, 3),
            connections=self._connections,
        )
