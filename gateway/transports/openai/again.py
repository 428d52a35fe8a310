"""Recognizes requests that a client retries, so that they don't run twice.

OpenAI's clients mark retries, but send no idempotency key: their requests are identified by the
principal and the body. Anonymous clients share a principal, so that two of them may send the same
request; neither of them is given the other's result.
"""

from typing import NamedTuple

from starlette.requests import Request

from gateway.admission import ANONYMOUS, Refused, Visitor
from gateway.errors import WAIT_SECONDS, ErrorCode, Outcome
from gateway.protocol.messages import ErrorObject
from gateway.transports.exchange import principal_of
from gateway.transports.openai.keeping import Asked, Keeper, record_name

RETRY_COUNT = "x-stainless-retry-count"
"""Header with the number of earlier attempts, which all of OpenAI's clients send."""

IDEMPOTENCY_KEY = "idempotency-key"
"""Header that any client may send: requests with the same key and body are the same request."""

AMBIGUOUS = ErrorObject(
    code=ErrorCode.GATEWAY_LOST,
    message="An identical request was sent before, and may have run. Without [auth], the gateway "
    "can't know whether it was yours: send requests with an Idempotency-Key.",
    retryable=False,
    outcome=Outcome.UNKNOWN,
)
"""Error of a request whose record may be another client's: it is neither run nor answered."""


def on_its_way() -> Refused:
    """Error of a retry whose first request has not been assigned to a session yet."""
    text = "The first of these requests is still running; send this again."
    return Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)


async def reserve(keeper: Keeper, known: "Known", owner: str) -> None:
    """Store that a request is running, before it is assigned to a session.

    Args:
        keeper: Stores the results of requests.
        known: Identity of the request; its name must not be None.
        owner: Principal of the client.

    Raises:
        Refused: A request with the same identity is running, and may be the same.
    """
    assert known.name is not None  # noqa: S101 - see above
    asked = Asked(owner=owner, response_id="")
    if not known.is_resent:
        await keeper.put(known.name, asked)
    elif not await keeper.add(known.name, asked):
        raise on_its_way()


class Known(NamedTuple):
    """Identity of a request.

    Attributes:
        name: Name of the record of its result; None if retries of it can't be recognized.
        is_resent: Whether it may have been sent before.
        is_own: Whether a record of this name is certain to be this client's.
    """

    name: str | None = None
    is_resent: bool = False
    is_own: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether a retry of the request gets its result."""
        return self.name is not None and self.is_own


def known_by(request: Request, visitor: Visitor, body: bytes) -> Known:
    """Identify a request.

    Args:
        request: The request.
        visitor: The client.
        body: The request's complete body.
    """
    owner, count = principal_of(visitor), request.headers.get(RETRY_COUNT)
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None:
        name = record_name("asked", b"\0".join((owner.encode(), b"key", key.encode(), body)))
        return Known(name, is_resent=True, is_own=True)
    if count is None:
        return Known()
    name = record_name("asked", owner.encode() + b"\0" + body)
    return Known(name, is_resent=count != "0", is_own=owner != ANONYMOUS)
