"""Checks every API request: the page's origin, then the client; turns errors into problems."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission import Admission, Refused, Visitor
from gateway.errors import ErrorCode
from gateway.tracecontext import CARRIER, carrier_of
from gateway.transports.credentials import credentials_of
from gateway.transports.origins import REFUSED, Origins
from gateway.transports.problems import not_allowed, problem
from gateway.transports.proxies import Proxies


class ApiRequest(Request):
    """A request to the API.

    Args:
        scope: See the ASGI specification.
        receive: See the ASGI specification.
        send: See the ASGI specification.
        answered: Counter of responses by status.

    Attributes:
        named: Headers by lower-case name; the last one of repeated headers.
        is_answered: Whether the response has begun.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, answered: Counter[int]) -> None:
        super().__init__(scope, receive, send)
        self._answered = answered
        self.named: dict[bytes, bytes] = dict(scope["headers"])
        self.is_answered = False

    def text(self, name: bytes) -> str:
        """Return a header's value; empty if there is none."""
        return self.named.get(name, b"").decode("latin-1")

    async def respond(self, response: Response) -> None:
        """Send the response."""
        self.is_answered = True
        self._answered[response.status_code] += 1
        await response(self.scope, self.receive, self._send)


Handler = Callable[[ApiRequest, Visitor], Awaitable[Response]]
"""Handles an authenticated client's request. A `Refused` that it raises becomes a problem."""

NOBODY = "This requires a key or a token."

TAKEN = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Session-Key")
"""Request headers allowed for pages of other origins, besides those of a call's options."""


class Gate:
    """Authorizes the requests of all paths of an API.

    Args:
        admission: Authenticates clients.
        origins: Decides which pages may send requests.
        proxies: Determines a request's client.
        taken: Further request headers allowed for pages of other origins.
        shown: Response headers that these pages may read.
        answered: Counter of responses by status, if it is shared.

    Attributes:
        answered: The counter of responses by status.
        foreign: Error message for pages of origins that aren't allowed.
    """

    foreign = REFUSED

    def __init__(
        self,
        admission: Admission,
        *,
        origins: Origins,
        proxies: Proxies,
        taken: tuple[str, ...] = (),
        shown: tuple[str, ...] = (),
        answered: Counter[int] | None = None,
    ) -> None:
        self.answered: Counter[int] = Counter() if answered is None else answered
        self._admission = admission
        self._origins = origins
        self._proxies = proxies
        self._taken = ", ".join((*TAKEN, *taken))
        self._shown = ", ".join(shown)

    def refuse(self, refused: Refused) -> Response:
        """Return the response for a refused request."""
        return problem(refused)

    def finish(self, response: Response, visitor: Visitor | None) -> None:
        """Add headers that all responses have.

        Args:
            response: A handler's response, or a refusal.
            visitor: The client; None if the request was refused before it was examined.
        """

    def call(self, handler: Handler, request: ApiRequest, visitor: Visitor) -> Awaitable[Response]:
        """Call a handler."""
        return handler(request, visitor)

    def path(self, path: str, **handlers: Handler) -> HttpRoute:
        """Create the route of a path from the handlers of its methods."""
        return HttpRoute(path, _Path(self, handlers))

    async def answer(self, handlers: Mapping[str, Handler], request: ApiRequest) -> None:
        """Handle one request."""
        headers, client = request.named, self._proxies.client(request)
        route = request.path_params.get("route")
        origin, host = text_of(headers.get(b"origin")), text_of(headers.get(b"host"))
        shared = [*_EVERY]
        if not self._origins.allow(origin, host, route=route, client=client):
            response = self.refuse(Refused(ErrorCode.FORBIDDEN, self.foreign))
            response.raw_headers += shared
            self.finish(response, None)
            await request.respond(response)
            return
        if origin is not None:
            shared.append((b"access-control-allow-origin", origin.encode("latin-1")))
            shared.append((b"access-control-expose-headers", self._shown.encode()))
        method = request.method
        if method == "OPTIONS":
            asked = {
                "Access-Control-Allow-Methods": ", ".join(handlers),
                "Access-Control-Allow-Headers": self._taken,
                "Access-Control-Max-Age": "600",
            }
            response = Response(status_code=204, headers=asked)
            response.raw_headers += shared
            await request.respond(response)
            return
        handler = handlers.get(method)
        if handler is None:
            response = not_allowed(handlers)
            response.raw_headers += shared
            await request.respond(response)
            return
        visitor = self._admission.arrive(client.address)
        try:
            try:
                await visitor.identify(credentials_of(request.text(b"authorization")), route=route)
                if visitor.principal is None:
                    response = self.refuse(Refused(ErrorCode.UNAUTHENTICATED, NOBODY))
                else:
                    visitor.refund()
                    response = await self.call(handler, request, visitor)
            except Refused as refused:
                response = self.refuse(refused)
            response.raw_headers += shared
            self.finish(response, visitor)
            await request.respond(response)
        finally:
            visitor.release()


_EVERY = [(b"vary", b"Origin"), (b"x-content-type-options", b"nosniff")]
"""Headers of every response."""


def text_of(value: bytes | None) -> str | None:
    """Decode a header's value."""
    return None if value is None else value.decode("latin-1")


class Paths:
    """An ASGI application that serves some paths, and passes all others on.

    It does the work of Starlette's router in a third of the time, since each message is a request.

    Args:
        routes: The routes; each `_Path` responds to every method.
        others: Application for all other paths.
    """

    def __init__(self, routes: Sequence[HttpRoute], others: ASGIApp) -> None:
        self.routes = [*routes]
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http":
            path, root = scope["path"], scope.get("root_path", "")
            if f"{path}/".startswith(f"{root}/"):
                path = path[len(root) :]
            for route in self.routes:
                if (match := route.path_regex.match(path)) is not None:
                    scope["path_params"] = match.groupdict()
                    await route.app(scope, receive, send)
                    return
        await self._others(scope, receive, send)


class _Path:
    """The ASGI application of one path."""

    def __init__(self, gate: Gate, handlers: Mapping[str, Handler]) -> None:
        self._gate = gate
        self._handlers = {**handlers, "HEAD": handlers["GET"]} if "GET" in handlers else handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        request = ApiRequest(scope, receive, send, self._gate.answered)
        traced = b"traceparent" in request.named
        token = CARRIER.set(carrier_of(request.headers) if traced else None)
        try:
            await self._gate.answer(self._handlers, request)
        except ClientDisconnect:
            pass  # the server has noticed
        except Exception:
            if not request.is_answered:  # otherwise its status is counted already
                self._gate.answered[500] += 1
            raise
        finally:
            CARRIER.reset(token)
