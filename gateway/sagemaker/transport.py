"""The interface of transports: `gateway.sagemaker.lean`, or the slower `gateway.sagemaker.aio`.

`gateway.sagemaker.errors` maps the exceptions of calls to failures.
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
"""How much of an error's body is read; the platform's errors are far smaller."""

OnBytes = Callable[[bytes], None]
"""Called with bytes as they arrive."""


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of calls. Times are in seconds.

    Attributes:
        connections: The largest number of concurrent calls; others wait.
        connect_timeout: The time to connect.
        read_timeout: The time without data while waiting for a reply or its next piece; a model may
            take 60 to begin, and AWS advises 70.
        call_timeout: The time of a whole call, from waiting for a connection to the last byte of
            the reply; or to the first, if it is streamed.
        stream_timeout: The time of a streamed reply from then on; SageMaker ends one after 480.
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
        content_type: ``ContentType``, as set by the container; it can be wrong.
        variant: ``InvokedProductionVariant``.
        custom_attributes: ``CustomAttributes``.
    """

    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None


OnHead = Callable[[StreamedReply], Splitter]
"""Called with the head of a streamed reply; returns what splits its bytes into parts."""


def too_large(reply_bytes: int) -> ModelError:
    """Return the error of a reply that is too large."""
    text = f"The model's reply is larger than {reply_bytes} bytes."
    return ModelError(Failure(code=ErrorCode.TOO_LARGE, message=text, outcome=Outcome.INVOKED))


def streamed_reply(response: Mapping[str, Any]) -> StreamedReply:
    """Convert the members of the API model's output to the head of a streamed reply."""
    return StreamedReply(
        content_type=response.get("ContentType"),
        variant=response.get("InvokedProductionVariant"),
        custom_attributes=response.get("CustomAttributes"),
    )


OnEnd = Callable[[T | Exception], None]
"""Called with a call's result or error."""


class Transport(Protocol):
    """Makes calls, each once. No callback runs before the method has returned.

    An error after the head of a successful reply, or in a callback, ends a call with `ReplyFailed`
    or `ModelError`; an earlier error with another `CallError` or an exception of botocore's.

    Attributes:
        budget: The budget for reading the replies of all its calls.
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
        """Call InvokeEndpoint.

        Args:
            parameters: The API model's parameters.
            on_end: Called with the members of its output, with ``Body`` as bytes.
            sha256: The body's digest, if known.
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
        """Call InvokeEndpointWithResponseStream, and read its stream to the end.

        Args:
            parameters: The API model's parameters.
            on_head: Called when the reply begins.
            on_parts: Called with the parts from its splitter. An exception that it raises ends the
                call.
            on_end: Called with the reply's head, once the stream has ended.
            sha256: The body's digest, if known.
        """
        ...


async def result_of(start: Callable[[OnEnd[T]], Call]) -> T:
    """Make a call and await its result; cancelling this cancels the call.

    Args:
        start: Starts the call, given its `on_end`.

    Raises:
        Exception: The call's exception.
    """
    future: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()

    def ended(result: T | Exception) -> None:
        if not future.done():  # it may be cancelled, but the call not yet
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
