"""What an instance is to the platform: something that answers POST /invocations."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Protocol, Self

import aiohttp
from msgspec import Struct

SESSION_ID = "x-amzn-sagemaker-session-id"
NEW_SESSION_ID = "x-amzn-sagemaker-new-session-id"
CLOSED_SESSION_ID = "x-amzn-sagemaker-closed-session-id"
INFERENCE_ID = "x-amzn-sagemaker-inference-id"
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


class Parts(Protocol):
    """A body that comes in parts, as an async generator gives them.

    Raises:
        ContainerUnreachable: It breaks off, on any part.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""
        ...

    async def __anext__(self) -> bytes:
        """The next part."""
        ...

    async def aclose(self) -> None:
        """Stop the work that it comes from."""
        ...


class ContainerReply(Struct, frozen=True):
    """An HTTP answer of a container; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Parts


async def whole(body: bytes | Parts) -> bytes:
    """A body in one piece.

    Raises:
        ContainerUnreachable: It breaks off.
    """
    if isinstance(body, bytes):
        return body
    async with contextlib.aclosing(body):
        return b"".join([part async for part in body])


class ContainerUnreachable(Exception):
    """The container does not answer, or breaks off."""


class Container(Protocol):
    """One instance."""

    async def invoke(self, headers: Mapping[str, str], body: bytes) -> ContainerReply:
        """Answer one invocation.

        Args:
            headers: By name in lower case.
            body: As the client sent it.

        Raises:
            ContainerUnreachable: It does not answer.
        """
        ...

    @property
    def turns(self) -> Mapping[str, int]:
        """How many turns each session has begun; "" is for turns without a session."""
        ...

    def expire(self, session_id: str | None) -> None:
        """Let a session expire now; None for all of them."""
        ...

    def reset(self) -> None:
        """Forget everything, as an instance that is replaced."""
        ...

    async def close(self) -> None:
        """Close what it holds."""
        ...


class _ResponseParts:
    """The body of a response, as it comes; `Parts`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            part = await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ContainerUnreachable(type(error).__name__) from None
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self._response.close()


class HttpContainer:
    """A container of somebody else's, by URL.

    Args:
        url: Where its ``/invocations`` is.
    """

    turns: Mapping[str, int] = {}
    """It keeps its own counts."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/invocations"
        self._client: aiohttp.ClientSession | None = None

    async def invoke(self, headers: Mapping[str, str], body: bytes) -> ContainerReply:
        """See `Container.invoke`."""
        if self._client is None:
            # How long a reply may take is for the platform to say.
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
            )
        try:
            response = await self._client.post(self._url, data=body, headers=headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ContainerUnreachable(type(error).__name__) from None
        return ContainerReply(
            response.status,
            {name.lower(): value for name, value in response.headers.items()},
            _ResponseParts(response),
        )

    def expire(self, session_id: str | None) -> None:
        """Its sessions are not ours to end; it has a setting for how long they last."""

    def reset(self) -> None:
        """What it knows is not ours to forget; the platform stops routing to it."""

    async def close(self) -> None:
        """See `Container.close`."""
        if self._client is not None:
            await self._client.close()
