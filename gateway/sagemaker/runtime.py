"""SageMaker Runtime through aiobotocore: one client for all routes of a gateway."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

import gateway
from gateway.errors import ErrorCode, Failure, Outcome
from gateway.sagemaker.errors import failure_of
from gateway.sagemaker.parts import StreamedReply, payload_parts
from gateway.sagemaker.profiles import Profile
from gateway.session.ports import ModelError


class NotConfigured(Exception):
    """No client can be made: there is no region, no such profile, or the like."""


class Runtime:
    """Calls SageMaker Runtime, each once.

    Args:
        client: aiobotocore's, for ``sagemaker-runtime``.
        reply_bytes: The largest body of a reply.
    """

    def __init__(self, client: Any, *, reply_bytes: int) -> None:
        self._client = client
        self._reply_bytes = reply_bytes

    async def invoke_endpoint(self, profile: Profile, **parameters: Any) -> dict[str, Any]:
        """InvokeEndpoint, its ``Body`` read as bytes.

        Args:
            profile: Says which errors of the container mean a lost session.
            parameters: As in the API model.

        Raises:
            ModelError: It failed.
        """
        try:
            response: dict[str, Any] = await self._client.invoke_endpoint(**parameters)
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops here
            raise ModelError(failure_of(error, profile)) from None
        try:
            response["Body"] = await self._read(response["Body"])
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            failure_of(error, profile)  # logs it
            text = "The model's reply broke off."
            raise ModelError(
                Failure(code=ErrorCode.STREAM_BROKEN, message=text, outcome=Outcome.INVOKED)
            ) from None
        return response

    @asynccontextmanager
    async def invoke_endpoint_with_response_stream(
        self, profile: Profile, **parameters: Any
    ) -> AsyncIterator[StreamedReply]:
        """InvokeEndpointWithResponseStream; leaving the context closes what is left of the stream.

        Args:
            profile: Says which errors of the container mean a lost session.
            parameters: As in the API model.

        Raises:
            ModelError: It failed; after that, the iterator of the parts raises it.
        """
        try:
            response = await self._client.invoke_endpoint_with_response_stream(**parameters)
        except Exception as error:  # noqa: BLE001 - as above
            raise ModelError(failure_of(error, profile)) from None
        body = response["Body"]
        try:
            content = body._raw_stream.content  # noqa: SLF001 - see `gateway.sagemaker.parts`
            silence = self._client.meta.config.read_timeout
            async with aclosing(payload_parts(content, read_timeout=silence)) as parts:
                yield StreamedReply(
                    parts=parts,
                    content_type=response.get("ContentType"),
                    variant=response.get("InvokedProductionVariant"),
                    custom_attributes=response.get("CustomAttributes"),
                )
        finally:
            # Nothing else does it in time: the connection would stay open, and the model at work.
            body.close()

    async def _read(self, body: Any) -> bytes:
        whole = bytearray()
        async with body as stream:
            async for chunk in stream.iter_chunks(65_536):
                whole += chunk
                if len(whole) > self._reply_bytes:
                    text = f"The model's reply is larger than {self._reply_bytes} bytes."
                    raise ModelError(
                        Failure(code=ErrorCode.TOO_LARGE, message=text, outcome=Outcome.INVOKED)
                    )
        return bytes(whole)


@asynccontextmanager
async def runtime_client(
    *,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    max_pool_connections: int,
    connect_timeout: float,
    read_timeout: float,
    reply_bytes: int,
) -> AsyncIterator[Runtime]:
    """A client that is closed with this context. Credentials come from AWS's usual chain.

    Args:
        region: None for that of the environment or the profile.
        profile: Of the shared configuration files; None for the default one.
        endpoint_url: Where to call in place of AWS.
        max_pool_connections: How many calls can be under way at once; the others wait.
        connect_timeout: In seconds.
        read_timeout: In seconds; a model may take 60 to answer, and AWS advises 70.
        reply_bytes: The largest body of a reply.

    Raises:
        NotConfigured: It can't be made.
    """
    session: Any = AioSession(profile=profile)
    config = AioConfig(
        # One attempt. botocore's default of five sends a turn again after a read timeout or a 5xx,
        # and a stateful model would see it twice. Given here, it wins over AWS_MAX_ATTEMPTS.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=max_pool_connections,
        tcp_keepalive=True,
        user_agent_extra=f"session-gateway/{gateway.__version__}",
    )
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(
                session.create_client(
                    "sagemaker-runtime",
                    region_name=region,
                    endpoint_url=endpoint_url,
                    config=config,
                )
            )
        except (BotoCoreError, ValueError) as error:
            raise NotConfigured(str(error)) from None
        yield Runtime(client, reply_bytes=reply_bytes)
