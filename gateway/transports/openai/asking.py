"""What a client asks for, and how it can fail before there is anything to tell of it."""

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
"""How often there is a sign of life for who does not need one."""


class Failed(Exception):
    """A turn has failed before there was anything to tell of it.

    Attributes:
        error: Why.
    """

    def __init__(self, error: ErrorObject) -> None:
        super().__init__(error.code.value)
        self.error = error


def unknown(text: str = UNKNOWN.message, *, retryable: bool = False) -> Failed:
    """Nobody knows what has become of a turn.

    Args:
        text: Why, for people.
        retryable: Whether the same request finds it again, and is not another turn.
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
    """What a client asks for.

    Attributes:
        request: As it is written.
        visitor: Who that is.
        size: About how many bytes it has.
        known: What it is known by when it is sent again.
        seconds: How long nothing may be told. It is never as long as it takes: who waits so is not
            told at once that the turn is accepted, and it is kept and answered for then.
        past: What it goes on from, where that is known.
        closes: Whether its session is over with it, where it is not stored.
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
        """Whose the response is."""
        return principal_of(self.visitor)

    @property
    def is_stored(self) -> bool:
        """Whether the response can be asked for later."""
        return self.request.store is not False
