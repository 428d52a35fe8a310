"""Processing that all requests to OpenAI's API have in common, and the headers of responses."""

import secrets

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from gateway.admission import Refused, Visitor
from gateway.errors import ErrorCode, Outcome, internal
from gateway.protocol.messages import ErrorObject
from gateway.transports.gate import ApiRequest, Gate, Handler
from gateway.transports.openai.errors import answer_of

REQUEST_ID = "X-Request-Id"
"""Header with an id that clients quote when they ask the operator about a response."""

TAKEN = (
    "OpenAI-Beta",
    "OpenAI-Organization",
    "OpenAI-Project",
    "X-Client-Request-Id",
    "X-Session-Id",
    "X-Stainless-Arch",
    "X-Stainless-Helper-Method",
    "X-Stainless-Lang",
    "X-Stainless-OS",
    "X-Stainless-Package-Version",
    "X-Stainless-Retry-Count",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
    "X-Stainless-Timeout",
)
"""Headers of requests by OpenAI's own client, which browsers must be allowed to send."""

LIMIT, REMAINING, RESET = (
    f"X-RateLimit-{what}-Requests" for what in ("Limit", "Remaining", "Reset")
)
SHOWN = (REQUEST_ID, LIMIT, REMAINING, RESET, "Retry-After", "Retry-After-Ms", "X-Should-Retry")
"""Headers of responses that pages of other origins may read (CORS)."""

log = structlog.stdlib.get_logger("gateway.openai")


class OpenAiGate(Gate):
    """The gate of OpenAI's API; see `Gate` for the arguments."""

    def path(self, path: str, **handlers: Handler) -> Route:
        """See `Gate.path`. Other methods fall through to the route of unknown paths."""
        every = super().path(path, **handlers)
        return Route(path, every.endpoint, methods=[*handlers, "OPTIONS"])

    def refuse(self, refused: Refused) -> Response:
        """See `Gate.refuse`."""
        return answer_of(refused)

    def finish(self, response: Response, visitor: Visitor | None) -> None:
        """See `Gate.finish`. Keeps a request id that the handler has set."""
        response.headers.setdefault(REQUEST_ID, f"req_{secrets.token_hex(16)}")
        allowance = None if visitor is None else visitor.allowance()
        if allowance is not None:
            response.headers[LIMIT] = str(allowance.messages)
            response.headers[REMAINING] = str(allowance.left)
            response.headers[RESET] = f"{allowance.seconds:.3f}s"

    async def call(self, handler: Handler, request: ApiRequest, visitor: Visitor) -> Response:
        """See `Gate.call`. Unexpected exceptions are answered as well: clients retry requests that
        end without an answer.
        """
        try:
            return await super().call(handler, request, visitor)
        except (ClientDisconnect, Refused):
            raise
        except Exception:
            log.exception("a request failed", method=request.method)
            failure = internal(Outcome.UNKNOWN)
            return answer_of(
                ErrorObject(
                    code=ErrorCode.INTERNAL,
                    message=failure.message,
                    retryable=False,
                    outcome=failure.outcome,
                )
            )
