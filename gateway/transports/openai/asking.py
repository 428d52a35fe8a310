"""A request for a response, and the error of a turn that fails before its first event."""

from typing import NamedTuple

from gateway.admission import Visitor
from gateway.errors import ErrorCode, Outcome
from gateway.protocol.messages import ErrorObject
from gateway.transports.exchange import principal_of
from gateway.transports.openai.again import Known
from gateway.transports.openai.past import Past
from gateway.transports.openai.reading import UNKNOWN
from gateway.transports.openai.requests import CreateResponse

SIGN_SECONDS = 60.0
"""Interval of heartbeats for readers that don't need any."""


class Failed(Exception):
    """A turn has failed before its first event.

    Attributes:
        error: The error to send to the client.
    """

    def __init__(self, error: ErrorObject) -> None:
        super().__init__(error.code.value)
        self.error = error


def unknown(text: str = UNKNOWN.message, *, retryable: bool = False) -> Failed:
    """Error of a turn whose outcome is unknown.

    Args:
        text: Message for humans.
        retryable: Whether a retry of the request gets the turn's result, instead of another turn.
    """
    return Failed(
        ErrorObject(
            code=ErrorCode.GATEWAY_LOST,
            message=text,
            retryable=retryable,
            outcome=Outcome.UNKNOWN,
        )
    )


class Ask(NamedTuple):
    """A request for a response.

    Attributes:
        request: The parsed body.
        visitor: The client.
        size: Approximate number of bytes.
        known: Identity of the request, by which retries are recognized.
        seconds: Interval of heartbeats. Never unlimited: patient listeners don't get
            `MessageAccepted` immediately, which is when the response is stored.
        past: Its history; None if that is not known yet.
        closes: Whether to close the session after a response that is not stored.
    """

    request: CreateResponse
    visitor: Visitor
    size: int
    known: Known = Known()
    seconds: float = SIGN_SECONDS
    past: Past | None = None
    closes: bool = True

    def __repr__(self) -> str:
        return f"<Ask of {self.size}>"

    @property
    def owner(self) -> str:
        """Principal that the response belongs to."""
        return principal_of(self.visitor)

    @property
    def is_stored(self) -> bool:
        """Whether the response can be retrieved later."""
        return self.request.store is not False
