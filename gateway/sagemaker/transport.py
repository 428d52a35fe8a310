"""What makes the calls: `gateway.sagemaker.aio` or, cheaply, `gateway.sagemaker.lean`.

`gateway.sagemaker.errors` says what the exceptions mean that a call ends with.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.streams import Splitter
from gateway.protocol.discretion import Discreet
from gateway.sagemaker.budget import ReadBudget
from gateway.session.ports import Call, ModelError, OnParts

T = TypeVar("T")

ERROR_BYTES = 1_048_576
"""How much of an error's body is read; the platform's own are far smaller."""

OnBytes = Callable[[bytes], None]
"""Takes bytes as they come."""


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long calls may take, and how much they may bring. Times are in seconds.

    Attributes:
        connections: How many calls can be under way at once; the others wait.
        connect_timeout: To connect.
        read_timeout: Between one piece of an answer and the next; a model may take 60 to begin, and
            AWS advises 70.
        call_timeout: For a call as a whole, from waiting for a connection to the last byte of the
            reply; or to the first, where it is streamed.
        stream_timeout: For a streamed reply from then on; SageMaker ends one after 480.
        reply_bytes: The largest body of a reply.
    """

    connections: int
    connect_timeout: float
    read_timeout: float
    call_timeout: float
    stream_timeout: float
    reply_bytes: int


class StreamedReply(Discreet, frozen=True, kw_only=True):
    """The head of a streamed reply.

    Attributes:
        content_type: ``ContentType``: what the container says; it can be wrong.
        variant: ``InvokedProductionVariant``.
        custom_attributes: ``CustomAttributes``.
    """

    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None


OnHead = Callable[[StreamedReply], Splitter]
"""Takes the head of a streamed reply, and gives what makes parts of its bytes."""


def too_large(reply_bytes: int) -> ModelError:
    """The failure of a reply that is larger than it may be."""
    text = f"The model's reply is larger than {reply_bytes} bytes."
    return ModelError(Failure(code=ErrorCode.TOO_LARGE, message=text, outcome=Outcome.INVOKED))


def streamed_reply(response: Mapping[str, Any]) -> StreamedReply:
    """The head of a streamed reply, from the members of the API model's output."""
    return StreamedReply(
        content_type=response.get("ContentType"),
        variant=response.get("InvokedProductionVariant"),
        custom_attributes=response.get("CustomAttributes"),
    )


OnEnd = Callable[[T | Exception], None]
"""Takes what has become of a call."""


class Transport(Protocol):
    """Makes calls, each once. Nothing is heard of one before the method has returned.

    What goes wrong after the head of a good reply, in a callback too, ends a call with
    `ReplyFailed` or `ModelError`, and what goes wrong before that with another `CallError` or with
    an exception of botocore's.

    Attributes:
        budget: For the work on replies of all its calls.
    """

    @property
    def budget(self) -> ReadBudget: ...

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """InvokeEndpoint.

        Args:
            parameters: As in the API model.
            on_end: Called with the members of its output, its ``Body`` as bytes.
            sha256: The body's digest, where it is known.
        """
        ...

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_parts: OnParts,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """InvokeEndpointWithResponseStream, until its stream ends.

        Args:
            parameters: As in the API model.
            on_head: Called when the reply begins.
            on_parts: Called with the parts that its splitter makes. What it raises ends the call.
            on_end: Called with the reply's head once more.
            sha256: As above.
        """
        ...


async def result_of(start: Callable[[OnEnd[T]], Call]) -> T:
    """Make a call and wait for its end; cancelling that cancels the call.

    Args:
        start: Makes it, given what is to be called at its end.

    Raises:
        Exception: The call's.
    """
    future: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()

    def ended(result: T | Exception) -> None:
        if not future.done():  # it may be cancelled, and this not know of it yet
            future.set_result(result)

    call = start(ended)
    try:
        result = await future
    except asyncio.CancelledError:
        call.cancel()
        raise
    if isinstance(result, Exception):
        raise result
    return result
