"""The parts of a streamed reply, out of the event stream that InvokeEndpointWithResponseStream is.

Where botocore decodes the events, they are not read through its ``EventStream``, which keeps the
``ErrorCode`` of a ``ModelStreamError`` to itself, and takes a stream that ends in the middle of an
event for a whole one.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import msgspec
from botocore.eventstream import EventStreamBuffer

from gateway.errors import Failure
from gateway.logs import printable
from gateway.sagemaker.errors import BROKEN_OFF, TIMED_OUT, with_facts
from gateway.sagemaker.eventstream import EventStream, Malformed
from gateway.sagemaker.transport import OnPayloads
from gateway.session.ports import ModelError


class Parts:
    """The bytes of each ``PayloadPart``, out of a body that is fed to it.

    Args:
        take: Called with those that come together. What it raises comes out of `feed`.
    """

    def __init__(self, take: OnPayloads) -> None:
        self._take = take
        self._events = EventStream()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            ModelError: The stream broke, or the platform ended it with an exception.
        """
        whole = []
        try:
            for headers, payload in self._events.feed(data):
                if part := _payload(headers, payload):
                    whole.append(part)
        except Malformed as error:
            raise ModelError(with_facts(BROKEN_OFF, cause=str(error))) from None
        finally:  # what came before a fault counts
            if whole:
                self._take(whole)

    def end(self) -> None:
        """The body is over.

        Raises:
            ModelError: The stream was not.
        """
        if self._events.pending:
            raise _cut_off()


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
                if part := _payload(event.headers, event.payload):
                    yield part
    except ModelError:
        raise
    except TimeoutError:
        raise ModelError(TIMED_OUT) from None
    except Exception as error:  # noqa: BLE001 - connections, checksums, lengths: it is broken
        raise ModelError(with_facts(BROKEN_OFF, raised=type(error).__name__)) from None
    if pending:
        raise _cut_off()


def _cut_off() -> ModelError:
    return ModelError(with_facts(BROKEN_OFF, cause="the stream ends in the middle of an event"))


async def _read(content: aiohttp.StreamReader, read_timeout: float) -> bytes:
    # aiohttp has this timeout too, but drops it where what follows is no chunk: its C parser then
    # tells nobody, and the reader would wait for ever.
    async with asyncio.timeout(read_timeout):
        return await content.readany()


def _payload(headers: Mapping[str, Any], payload: bytes) -> bytes:
    """The bytes of a ``PayloadPart``; none for an event that the API does not know."""
    if headers.get(":message-type") in {"exception", "error"}:
        raise ModelError(_failure(headers, payload))
    return payload if headers.get(":event-type") == "PayloadPart" else b""


class _StreamError(msgspec.Struct, rename="pascal"):
    """The member of ``ModelStreamError`` that tells one from another."""

    error_code: str = ""


def _failure(headers: Mapping[str, Any], payload: bytes) -> Failure:
    try:
        cause = msgspec.json.decode(payload, type=_StreamError).error_code
    except msgspec.DecodeError:
        cause = ""
    failure = TIMED_OUT if cause == "ModelInvocationTimeExceeded" else BROKEN_OFF
    code = headers.get(":exception-type") or headers.get(":error-code") or ""
    return with_facts(failure, code=printable(str(code), 64), cause=printable(cause, 64))
