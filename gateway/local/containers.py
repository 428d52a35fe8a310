"""What an instance is to the platform: something that answers POST /invocations."""

from collections.abc import Mapping
from typing import Protocol

import aiohttp
from msgspec import Struct

SESSION_ID = "x-amzn-sagemaker-session-id"
NEW_SESSION_ID = "x-amzn-sagemaker-new-session-id"
CLOSED_SESSION_ID = "x-amzn-sagemaker-closed-session-id"
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


class ContainerReply(Struct, frozen=True):
    """An HTTP answer of a container; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ContainerUnreachable(Exception):
    """The container does not answer."""


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

    def reset(self) -> None:
        """Forget everything, as an instance that is replaced."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class HttpContainer:
    """A container of somebody else's, by URL.

    Args:
        url: Where its ``/invocations`` is.
        reply_seconds: How long it may take; the platform allows 60.
    """

    def __init__(self, url: str, *, reply_seconds: float = 60.0) -> None:
        self._url = f"{url.rstrip('/')}/invocations"
        self._timeout = aiohttp.ClientTimeout(total=reply_seconds)
        self._client: aiohttp.ClientSession | None = None

    async def invoke(self, headers: Mapping[str, str], body: bytes) -> ContainerReply:
        """See `Container.invoke`."""
        if self._client is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._client = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._client.post(self._url, data=body, headers=headers) as response:
                return ContainerReply(
                    response.status,
                    {name.lower(): value for name, value in response.headers.items()},
                    await response.read(),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ContainerUnreachable(type(error).__name__) from None

    def reset(self) -> None:
        """What it knows is not ours to forget; the platform stops routing to it."""

    async def close(self) -> None:
        """See `Container.close`."""
        if self._client is not None:
            await self._client.close()
