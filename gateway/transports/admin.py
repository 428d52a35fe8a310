"""The operators' HTTP API, under ``/v1/admin``."""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping
from contextlib import aclosing

import structlog
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from gateway.admin import questions as ask
from gateway.admin.fleet import Fleet, NotFound, NotReached
from gateway.admin.watching import TooManyWatch, Watch
from gateway.admission import Admission, Refused, Visitor
from gateway.errors import WAIT_SECONDS, ErrorCode
from gateway.session.table import State
from gateway.transports import problems, sse
from gateway.transports.drafts import json_of
from gateway.transports.gate import ApiRequest, Gate, Handler
from gateway.transports.hosts import Hosts
from gateway.transports.origins import Origins
from gateway.transports.proxies import Proxies

STATES: Mapping[str, State] = {state.value: state for state in State}

USUAL_SESSIONS = 50
"""Default number of sessions on a page."""

MOST_CHARACTERS = 256
"""Maximum length of a query parameter."""

PROXIED = (
    *(b"forwarded", b"via", b"x-real-ip"),
    *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
)
"""Headers that show that a proxy forwarded a request. HTTP/1.0 shows it as well: by default nginx
forwards with it, adds none of these headers, and sets ``Host`` to this machine's name.
"""

OWN = ("", "none", "same-origin")
"""Values of ``Sec-Fetch-Site`` (Fetch Metadata) in requests that no other site's page has made.
These may have no ``Origin``. Other programs than browsers don't send the header.
"""

log = structlog.stdlib.get_logger("gateway.admin")


class AdminGate(Gate):
    """Admits operators only.

    Without authentication, operators are programs on this machine, and the gateway's own page
    under one of the machine's names. Requests that a proxy forwarded are refused, as are those of
    pages at a name that an attacker has pointed at this machine (DNS rebinding), and those of
    other origins, whichever routes these may use.

    Args:
        admission: Authenticates clients.
        proxies: Determines a request's client.
        public: See `Origins`.
        authenticated: Whether clients have to authenticate.
        answered: See `Gate`.
    """

    foreign = "Only the gateway's own pages can make this request."

    def __init__(
        self,
        admission: Admission,
        proxies: Proxies,
        public: str | None,
        *,
        authenticated: bool,
        answered: Counter[int] | None = None,
    ) -> None:
        origins = Origins({}, public=public, any_name=authenticated)
        super().__init__(admission, origins=origins, proxies=proxies, answered=answered)
        self._authenticated = authenticated

    def path(self, path: str, **handlers: Handler) -> HttpRoute:
        """See `Gate.path`."""
        route = super().path(path, **handlers)
        if not self._authenticated:
            route.app = Hosts(route.app)
        return route

    def call(self, handler: Handler, request: ApiRequest, visitor: Visitor) -> Awaitable[Response]:
        """See `Gate.call`."""
        if not visitor.is_operator:
            text = (
                "This requires an operator's key or token."
                if self._authenticated
                else "There is no operator here: set up [auth], and make a key with --operator; "
                "or, without a proxy in front, set local_operator in [server]."
            )
            raise Refused(ErrorCode.FORBIDDEN, text)
        if not self._authenticated:
            is_old = request.scope["http_version"] == "1.0"
            if is_old or any(name in request.named for name in PROXIED):
                text = "A proxy forwarded this: set up [auth], and make a key with --operator."
                raise Refused(ErrorCode.FORBIDDEN, text)
            if request.text(b"sec-fetch-site") not in OWN:
                raise Refused(ErrorCode.FORBIDDEN, self.foreign)
        if wait := visitor.take(0):
            raise Refused(ErrorCode.RATE_LIMITED, "Rate limit exceeded; try again later.", wait)
        return super().call(handler, request, visitor)


class Admin:
    """The paths under ``/v1/admin``.

    Args:
        fleet: All replicas.
        watch: Streams their state to operators.
        gate: Authorizes each request.
    """

    def __init__(self, fleet: Fleet, watch: Watch, gate: AdminGate) -> None:
        self._fleet = fleet
        self._watch = watch
        self._gate = gate

    def routes(self) -> list[HttpRoute]:
        """Return the routes of all paths."""
        path = self._gate.path
        return [
            path("/v1/admin/sessions", GET=self.sessions),
            path("/v1/admin/sessions/{session_id}", GET=self.session, DELETE=self.close),
            path("/v1/admin/replicas", GET=self.replicas),
            path("/v1/admin/replicas/{name}/drain", POST=self.drain),
            path("/v1/admin/routes", GET=self.all_routes),
            path("/v1/admin/events", GET=self.events),
        ]

    async def sessions(self, request: ApiRequest, _visitor: Visitor) -> Response:
        """List sessions of all replicas."""
        return json_of(await self._fleet.sessions(_asked_for(request, self._fleet.endpoints)))

    async def session(self, request: ApiRequest, _visitor: Visitor) -> Response:
        """Describe one session."""
        try:
            return json_of(await self._fleet.look(request.path_params["session_id"]))
        except NotFound:
            raise _no_session() from None
        except NotReached as error:
            raise _unavailable(error) from None

    async def close(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Close a session, at the model too."""
        session_id = request.path_params["session_id"]
        try:
            replica = await self._fleet.close(session_id)
        except NotFound:
            raise _no_session() from None
        except NotReached as error:
            raise _unavailable(error) from None
        log.info(
            "an operator closes a session",
            operator=visitor.principal,
            session=session_id,
            at=replica,
        )
        return Response(status_code=204)

    async def replicas(self, _request: ApiRequest, _visitor: Visitor) -> Response:
        """List all replicas."""
        return json_of(await self._fleet.replicas())

    async def drain(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Drain a replica and stop it."""
        replica = request.path_params["name"]
        try:
            can = await self._fleet.drain(replica)
        except NotFound:
            return problems.response(404, "unknown_replica", "The replica does not exist.")
        except NotReached as error:
            raise _unavailable(error) from None
        if not can:
            text = "This replica is part of an application; stop that application instead."
            raise Refused(ErrorCode.VALIDATION_ERROR, text)
        log.warning("an operator drains a replica", operator=visitor.principal, drains=replica)
        return Response(status_code=202)

    async def all_routes(self, _request: ApiRequest, _visitor: Visitor) -> Response:
        """List all routes."""
        return json_of(await self._fleet.routes())

    async def events(self, _request: ApiRequest, visitor: Visitor) -> Response:
        """Stream the current state."""
        try:
            self._watch.check()
        except TooManyWatch:
            text = "Too many clients are reading these events; try again later."
            raise Refused(ErrorCode.RATE_LIMITED, text, WAIT_SECONDS) from None
        return sse.EventStream(self._stream(visitor), lambda: None)

    async def _stream(self, visitor: Visitor) -> AsyncGenerator[bytes]:
        """Yield events until the operator's credential expires or is withdrawn."""
        withdrawn: list[None] = []
        visitor.on_withdrawn = lambda: withdrawn.append(None)
        async with aclosing(self._watch.watch()) as seen:
            async for each in seen:
                expires_at = visitor.expires_at
                is_expired = expires_at is not None and expires_at <= time.time()
                if withdrawn or is_expired or not visitor.is_operator:
                    return
                yield b"data: %b\n\n" % each


def _asked_for(request: ApiRequest, routes: Collection[str]) -> ask.ListSessions:
    """Parse the query parameters of a list of sessions.

    Raises:
        Refused: A parameter is unknown or not valid.
    """
    given = request.query_params
    for name in given:
        if name not in {"after", "limit", "prefix", "principal", "route", "state"}:
            raise Refused(ErrorCode.BAD_MESSAGE, "Unknown query parameter.")
        if len(given[name]) > MOST_CHARACTERS or len(given.getlist(name)) > 1:
            raise Refused(ErrorCode.BAD_MESSAGE, f"`{name}` is too long, or given twice.")
    limit = given.get("limit", str(USUAL_SESSIONS))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= ask.MOST_SESSIONS):
        text = f"`limit` must be a number from 1 to {ask.MOST_SESSIONS}."
        raise Refused(ErrorCode.BAD_MESSAGE, text)
    route, state = given.get("route"), given.get("state")
    if route is not None and route not in routes:
        raise Refused(ErrorCode.BAD_MESSAGE, "The route does not exist.")
    if state is not None and state not in STATES:
        raise Refused(ErrorCode.BAD_MESSAGE, f"`state` must be one of {', '.join(STATES)}.")
    return ask.ListSessions(
        limit=int(limit),
        after=given.get("after", ""),
        prefix=given.get("prefix", ""),
        route=route,
        principal=given.get("principal", ""),
        state=None if state is None else STATES[state],
    )


def _no_session() -> Refused:
    return Refused(ErrorCode.SESSION_LOST, "The session does not exist or has ended.")


def _unavailable(error: NotReached) -> Refused:
    return Refused(ErrorCode.UNAVAILABLE, str(error), WAIT_SECONDS)
