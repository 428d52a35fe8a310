"""The platform's view of an instance: a container that handles POST /invocations."""

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
    """A streamed body, as an async generator.

    Raises:
        ContainerUnreachable: The stream breaks off; from any part.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return itself."""
        ...

    async def __anext__(self) -> bytes:
        """Return the next part."""
        ...

    async def aclose(self) -> None:
        """Stop generating it."""
        ...


class ContainerReply(Struct, frozen=True):
    """An HTTP response of a container; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Parts


async def whole(body: bytes | Parts) -> bytes:
    """Read a body to its end.

    Raises:
        ContainerUnreachable: The stream breaks off.
    """
    if isinstance(body, bytes):
        return body
    async with contextlib.aclosing(body):
        return b"".join([part async for part in body])


class ContainerUnreachable(Exception):
    """The container does not respond, or its stream breaks off."""


class Container(Protocol):
    """The container of one instance."""

    async def invoke(self, headers: Mapping[str, str], body: bytes) -> ContainerReply:
        """Handle an invocation.

        Args:
            headers: Headers by name in lower case.
            body: The body, as the client sent it.

        Raises:
            ContainerUnreachable: It does not respond.
        """
        ...

    @property
    def turns(self) -> Mapping[str, int]:
        """Number of turns started in each session; "" counts turns without a session."""
        ...

    def expire(self, session_id: str | None) -> None:
        """Expire a session now; None for all of them."""
        ...

    def reset(self) -> None:
        """Forget everything, as a replaced instance would."""
        ...

    async def close(self) -> None:
        """Release its resources."""
        ...


class _ResponseParts:
    """The streamed body of a response; see `Parts`."""

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
    """An external container, by URL.

    Args:
        url: Base URL of its ``/invocations``.
    """

    turns: Mapping[str, int] = {}
    """Empty: the container keeps its own counts."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/invocations"
        self._client: aiohttp.ClientSession | None = None

    async def invoke(self, headers: Mapping[str, str], body: bytes) -> ContainerReply:
        """See `Container.invoke`."""
        if self._client is None:
            # The platform limits how long a reply may take.
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
        """Do nothing: an external container's sessions expire by its own settings."""

    def reset(self) -> None:
        """Do nothing: the platform just stops routing to it."""

    async def close(self) -> None:
        """See `Container.close`."""
        if self._client is not None:
            await self._client.close()
