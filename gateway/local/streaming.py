"""Streamed replies: their parts, as the platform forwards them, and how they fail."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, assert_never

import msgspec

from gateway.local.containers import ContainerReply, ContainerUnreachable
from gateway.local.faults import BreakMode

if TYPE_CHECKING:
    from gateway.local.platform import Endpoint, Instance


class StreamFailure(Exception):
    """A stream fails after it has started.

    Args:
        kind: The exception's name in the API model; empty if the connection is closed instead.
        body: Its members, in JSON.
    """

    def __init__(self, kind: str, **members: str) -> None:
        super().__init__(kind, members)
        self.kind = kind
        self.body = msgspec.json.encode(members)


class Stream:
    """A stream that has started.

    Args:
        endpoint: Its endpoint, with limits and faults.
        instance: Its instance.
        losses: Value of the instance's `losses` when the call arrived.
        reply: The container's response.
    """

    def __init__(
        self, endpoint: "Endpoint", instance: "Instance", losses: int, reply: ContainerReply
    ) -> None:
        self.headers = reply.headers
        self._endpoint = endpoint
        self._instance = instance
        self._losses = losses
        self._body = _single(reply.body) if isinstance(reply.body, bytes) else reply.body

    async def run(self, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        """Deliver the parts as they arrive. The container's work is stopped when this ends.

        Args:
            deliver: Sends a part.

        Raises:
            StreamFailure: The stream fails.
        """
        broken = self._endpoint.faults.next_break()
        try:
            async with (
                aclosing(self._body),
                self._instance.at_work(self._endpoint.stream_seconds, self._losses),
                aclosing(self._parts()) as parts,
            ):
                count = 0
                while broken is None or count < broken[0]:
                    part = await anext(parts, None)
                    if part is None:
                        break
                    await asyncio.sleep(self._endpoint.faults.delay_parts_seconds)
                    await deliver(part)
                    count += 1
        except ContainerUnreachable:
            raise stream_failure("exception") from None
        except TimeoutError:
            raise stream_failure("time") from None
        if broken is not None:
            raise stream_failure(broken[1])

    async def aclose(self) -> None:
        """Stop the container's work."""
        await self._body.aclose()

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        slicer = self._endpoint.faults.slicer()
        async for data in self._body:
            for part in slicer.take(data):
                yield part
        for part in slicer.flush():
            yield part


async def _single(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def stream_failure(mode: BreakMode) -> StreamFailure:
    """Create the failure that a client gets."""
    match mode:
        case "exception":
            return StreamFailure(
                "ModelStreamError",
                Message="The connection to the model was reset or closed.",
                ErrorCode="StreamBroken",
            )
        case "time":
            return StreamFailure(
                "ModelStreamError",
                Message="The model did not finish its response within the time allowed.",
                ErrorCode="ModelInvocationTimeExceeded",
            )
        case "internal":
            return StreamFailure(
                "InternalStreamFailure", Message="The stream failed for an unknown reason."
            )
        case "cut":
            return StreamFailure("")
        case _:
            assert_never(mode)
