"""The parts of a streamed reply, out of the event stream that InvokeEndpointWithResponseStream is.

botocore decodes the events; they are read here and not through its ``EventStream``, which keeps
the ``ErrorCode`` of a ``ModelStreamError`` to itself, and takes a stream that ends in the middle
of an event for a whole one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import msgspec
import structlog
from botocore.eventstream import EventStreamBuffer, EventStreamMessage

from gateway.errors import Failure
from gateway.sagemaker.errors import BROKEN_OFF, TIMED_OUT
from gateway.session.ports import ModelError

log = structlog.stdlib.get_logger("gateway.sagemaker")


class StreamedReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a streaming call gives.

    Attributes:
        parts: The bytes of each ``PayloadPart`` as it comes. Raises `ModelError`.
        content_type: ``ContentType``: what the container says; it can be wrong.
        variant: ``InvokedProductionVariant``.
        custom_attributes: ``CustomAttributes``.
    """

    parts: AsyncIterator[bytes]
    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None


async def payload_parts(
    content: aiohttp.StreamReader, *, read_timeout: float
) -> AsyncGenerator[bytes]:
    """The bytes of each ``PayloadPart``, read from the body of a response with status 200.

    Args:
        content: The body.
        read_timeout: How long it may be silent, in seconds.

    Raises:
        ModelError: The stream broke, or the platform ended it with an exception; the model has
            seen the turn in any case.
    """
    buffer = EventStreamBuffer()
    pending = 0  # bytes of an event that is not whole
    try:
        while chunk := await _read(content, read_timeout):
            buffer.add_data(chunk)
            pending += len(chunk)
            for event in buffer:
                pending -= event.prelude.total_length
                if part := _payload(event):
                    yield part
    except ModelError:
        raise
    except TimeoutError:
        log.warning("stream timed out")
        raise ModelError(TIMED_OUT) from None
    except Exception as error:  # noqa: BLE001 - connections, checksums, lengths: it is broken
        log.warning("stream broken", error=type(error).__name__)
        raise ModelError(BROKEN_OFF) from None
    if pending:
        log.warning("stream broken", error="ends in the middle of an event")
        raise ModelError(BROKEN_OFF)


async def _read(content: aiohttp.StreamReader, read_timeout: float) -> bytes:
    # aiohttp has this timeout too, but drops it where what follows is no chunk: its C parser then
    # tells nobody, and the reader would wait for ever.
    async with asyncio.timeout(read_timeout):
        return await content.readany()


def _payload(event: EventStreamMessage) -> bytes:
    """The bytes of a ``PayloadPart``; none for an event that the API does not know."""
    headers: dict[str, Any] = event.headers
    if headers.get(":message-type") in {"exception", "error"}:
        raise ModelError(_failure(headers, event.payload))
    payload: bytes = event.payload
    return payload if headers.get(":event-type") == "PayloadPart" else b""


class _StreamError(msgspec.Struct, rename="pascal"):
    """The member of ``ModelStreamError`` that tells one from another."""

    error_code: str = ""


def _failure(headers: dict[str, Any], payload: bytes) -> Failure:
    try:
        cause = msgspec.json.decode(payload, type=_StreamError).error_code
    except msgspec.DecodeError:
        cause = ""
    code = headers.get(":exception-type") or headers.get(":error-code")
    log.warning("stream failed", code=code, cause=cause)
    return TIMED_OUT if cause == "ModelInvocationTimeExceeded" else BROKEN_OFF
