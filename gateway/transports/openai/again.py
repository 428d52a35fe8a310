"""How a request is known that a client sends again, so that it does not run twice.

OpenAI's clients say that they do, and send no key with it: what is known then is who asks, and the
request itself. Where everybody is anonymous that may be two clients, of which neither is given what
the other was answered.
"""

from typing import NamedTuple

from starlette.requests import Request

from gateway.admission import ANONYMOUS, Refused, Visitor
from gateway.errors import WAIT_SECONDS, ErrorCode, Outcome
from gateway.protocol.messages import ErrorObject
from gateway.transports.exchange import principal_of
from gateway.transports.openai.keeping import Asked, Keeper, record_name

RETRY_COUNT = "x-stainless-retry-count"
"""How often OpenAI's clients have sent a request before; they all say it."""

IDEMPOTENCY_KEY = "idempotency-key"
"""What any client may send: the same key with the same request is the same request."""

AMBIGUOUS = ErrorObject(
    code=ErrorCode.GATEWAY_LOST,
    message="An identical request was sent before, and may have run. Without [auth], the gateway "
    "can't know whether it was yours: send requests with an Idempotency-Key.",
    retryable=False,
    outcome=Outcome.UNKNOWN,
)
"""Why a request is not run again, and not answered either."""


def on_its_way() -> Refused:
    """What was sent before has not got anywhere yet."""
    text = "The first of these requests is still running; send this again."
    return Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)


async def reserve(keeper: Keeper, known: "Known", owner: str) -> None:
    """Have it be found that a request is on its way, before anything else is known of it.

    Args:
        keeper: Keeps what requests are answered with.
        known: What it is known by; it has a name.
        owner: Whose it is.

    Raises:
        Refused: Another like it is on its way, and may be the same.
    """
    assert known.name is not None  # noqa: S101 - see above
    asked = Asked(owner=owner, response_id="")
    if not known.is_resent:
        await keeper.put(known.name, asked)
    elif not await keeper.add(known.name, asked):
        raise on_its_way()


class Known(NamedTuple):
    """What a request is known by.

    Attributes:
        name: Of the record of what it is answered with; None where it can't be known again.
        is_resent: Whether it may have been sent before.
        is_own: Whether what is found under the name is this client's.
    """

    name: str | None = None
    is_resent: bool = False
    is_own: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether the same request, sent again, finds what it was answered with."""
        return self.name is not None and self.is_own


def known_by(request: Request, visitor: Visitor, body: bytes) -> Known:
    """What a request is known by.

    Args:
        request: As it came.
        visitor: Who asks.
        body: All of it.
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
