"""How long it takes to parse a streamed part, with nothing else around it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import botocore.session
from aiobotocore.eventstream import AioEventStream
from aiobotocore.parsers import AioEventStreamJSONParser, create_parser

from gateway.local.eventstream import payload_part
from gateway.sagemaker.payloads import Payloads

PARTS = 200
BURST = payload_part(b"word " * 8) * PARTS


class _Stream:
    """Stands for a response whose bytes are all there."""

    async def _chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        yield BURST, True

    @property
    def content(self) -> "_Stream":
        return self

    def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        return self._chunks()


async def _measure(seconds: float) -> float:
    service = botocore.session.get_session().get_service_model("sagemaker-runtime")
    shape = service.operation_model("InvokeEndpointWithResponseStream").output_shape.members["Body"]
    parser: Any = create_parser("rest-json")._event_stream_parser
    assert isinstance(parser, AioEventStreamJSONParser)

    async def once() -> int:
        found = 0
        stream: Any = AioEventStream(_Stream(), shape, parser, "InvokeEndpoint")
        async for event in stream:
            found += "PayloadPart" in event
        return found

    assert await once() == PARTS
    begun, parts = time.process_time(), 0
    while (taken := time.process_time() - begun) < seconds:
        parts += await once()
    return taken / parts


def seconds_per_part(seconds: float) -> float:
    """CPU time of a part.

    Args:
        seconds: How long to look.
    """
    return asyncio.run(_measure(seconds))


def own_seconds_per_part(seconds: float) -> float:
    """The same of this gateway's parser, which checks the same checksums."""
    begun, parts = time.process_time(), 0
    while (taken := time.process_time() - begun) < seconds:
        stream = Payloads()
        found = list(stream.feed(BURST))
        stream.end()
        parts += len(found)
    return taken / parts
