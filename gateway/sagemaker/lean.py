"""A fast transport, which works out once what doesn't change between calls.

aiobotocore still resolves endpoints and credentials, knows the API model, and parses errors.
`gateway.sagemaker.sdk` asks it how it would make a call, and from then on the same bytes are built
here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.sagemaker.budget import ReadBudget
from gateway.sagemaker.connection import Headers, OnGoodHead, Reply, Request
from gateway.sagemaker.exceptions import NoCredentials, NotSentInTime
from gateway.sagemaker.pool import ConnectionPool
from gateway.sagemaker.replies import ReplyReader
from gateway.sagemaker.requests import Operation
from gateway.sagemaker.sdk import Sdk, discover
from gateway.sagemaker.transport import (
    CallLimits,
    OnBytes,
    OnEnd,
    OnHead,
    StreamedReply,
    streamed_reply,
    too_large,
)
from gateway.session.ports import Call, OnParts

KEYS_SECONDS = 1.0
"""How long credentials are cached: a role's are refreshed, some minutes before they expire."""

Clock = Callable[[], float]
"""Returns the time in seconds since the epoch."""


class LeanTransport:
    """See `gateway.sagemaker.transport.Transport`; made by `lean_transport`."""

    def __init__(
        self,
        sdk: Sdk,
        credentials: Any,
        pool: ConnectionPool,
        limits: CallLimits,
        clock: Clock,
    ) -> None:
        self._sdk = sdk
        self._credentials = credentials
        self._frozen: Any = None
        self._frozen_until = 0.0
        self._pool = pool
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.limits = limits
        self.budget = ReadBudget(self._loop)

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """See `Transport.invoke_endpoint`."""
        operation, most = self._sdk.whole, self.limits.reply_bytes
        response: dict[str, Any] | None = None
        slices: list[bytes] = []
        left = most

        def begin(headers: Headers) -> OnBytes:
            nonlocal response
            response = operation.output(headers)
            return take

        def take(data: bytes) -> None:
            nonlocal left
            left -= len(data)
            if left < 0:
                raise too_large(most)
            slices.append(data)

        def ended(reply: Reply | Exception) -> None:
            if response is None or isinstance(reply, Exception):
                on_end(self._error(operation, reply))
            else:
                response["Body"] = slices[0] if len(slices) == 1 else b"".join(slices)
                on_end(response)

        return self._send(operation, parameters, sha256, begin, ended)

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_parts: OnParts,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,
    ) -> Call:
        """See `Transport.invoke_endpoint_with_response_stream`."""
        operation = self._sdk.streamed
        reader = ReplyReader(self.budget, on_head, on_parts, on_end)
        begun = False

        def begin(headers: Headers) -> OnBytes:
            nonlocal begun
            begun = True
            reader.begin(streamed_reply(operation.output(headers)))
            return reader.feed

        def ended(reply: Reply | Exception) -> None:
            failed = not begun or isinstance(reply, Exception)
            reader.end(self._error(operation, reply) if failed else None)

        then = self.limits.stream_timeout
        reader.source = self._send(operation, parameters, sha256, begin, ended, then=then)
        return reader

    def _send(
        self,
        operation: Operation,
        parameters: dict[str, Any],
        sha256: bytes | None,
        on_head: OnGoodHead,
        on_end: OnEnd[Reply],
        *,
        then: float | None = None,
    ) -> Request:
        loop = self._loop
        now = loop.time()
        deadline = now + self.limits.call_timeout
        request = Request(
            parameters.get("Body", b""), on_head, on_end, deadline=deadline, then=then
        )
        keys = self._keys_at_hand(now)
        if keys is None:
            request.starting = loop.create_task(
                self._send_later(operation, parameters, sha256, request)
            )
            return request
        try:
            request.head = operation.head(parameters, sha256, keys, self._sdk.signer, self._clock())
        except Exception as error:  # noqa: BLE001 - the caller's
            loop.call_soon(request.end, error)
        else:
            self._pool.send(request)
        return request

    def _keys_at_hand(self, now: float) -> Any:
        """Return frozen credentials; None if they can't be had without waiting."""
        if now < self._frozen_until:
            return self._frozen
        credentials = self._credentials
        if credentials is None:
            return None
        # Static credentials don't have this method.
        stale = getattr(credentials, "refresh_needed", None)
        if stale is not None and stale():
            return None
        asked = credentials.get_frozen_credentials()
        try:
            asked.send(None)
        except StopIteration as had:
            self._frozen, self._frozen_until = had.value, now + KEYS_SECONDS
            return self._frozen
        asked.close()
        return None

    async def _send_later(
        self,
        operation: Operation,
        parameters: dict[str, Any],
        sha256: bytes | None,
        request: Request,
    ) -> None:
        """Send a request once there are credentials."""
        try:
            async with asyncio.timeout_at(request.deadline):
                keys = await self._keys()
            request.head = operation.head(parameters, sha256, keys, self._sdk.signer, self._clock())
        except TimeoutError as error:
            request.end(NotSentInTime(error))
        except Exception as error:  # noqa: BLE001 - the caller's
            request.end(error)
        else:
            self._pool.send(request)

    async def _keys(self) -> Any:
        if self._credentials is None:
            raise NoCredentials
        return await self._credentials.get_frozen_credentials()

    def _error(self, operation: Operation, reply: Reply | Exception) -> Exception:
        """Return a call's exception; for an error response, the one that botocore makes of it."""
        if isinstance(reply, Exception):
            return reply
        try:
            return self._sdk.error_of(operation, reply)
        except Exception as error:  # noqa: BLE001 - a response that botocore can't parse
            return error


@asynccontextmanager
async def lean_transport(
    client: Any, credentials: Any, options: Mapping[str, Any], limits: CallLimits, clock: Clock
) -> AsyncIterator[LeanTransport]:
    """Make a transport whose connections are closed with this context.

    Args:
        client: An aiobotocore client for ``sagemaker-runtime``.
        credentials: The aiobotocore credentials that it signs with; None if there are none.
        options: The options of its HTTP session.
        limits: Limits of time and size.
        clock: The clock for signatures.

    Raises:
        NotLean: See `discover`.
    """
    sdk = await discover(client, credentials, options)
    pool = ConnectionPool(sdk.origin, limits)
    try:
        yield LeanTransport(sdk, credentials, pool, limits, clock)
    finally:
        pool.close()
