"""SageMaker Runtime through aiobotocore: one client for all routes of a gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

import gateway
from gateway.errors import ErrorCode, Failure, Outcome
from gateway.sagemaker.errors import TIMED_OUT, failure_of, failure_of_reply
from gateway.sagemaker.parts import StreamedReply, payload_parts
from gateway.sagemaker.profiles import Profile
from gateway.sagemaker.sessions import NEW_SESSION
from gateway.session.ports import ModelError

ERROR_BYTES = 1_048_576
"""How much of an error's body is read; the platform's own are far smaller."""


class NotConfigured(Exception):
    """No client can be made: there is no region, no such profile, or the like."""


class Runtime:
    """Calls SageMaker Runtime, each once.

    Args:
        client: aiobotocore's, for ``sagemaker-runtime``.
        call_timeout: How long a call may take as a whole, in seconds; where the reply is streamed,
            until it begins.
        stream_timeout: How long a streamed reply may take from then on, in seconds.
        reply_bytes: The largest body of a reply.
    """

    def __init__(
        self, client: Any, *, call_timeout: float, stream_timeout: float, reply_bytes: int
    ) -> None:
        self._client = client
        self._call_timeout = call_timeout
        self._stream_timeout = stream_timeout
        self._reply_bytes = reply_bytes

    async def invoke_endpoint(self, profile: Profile, **parameters: Any) -> dict[str, Any]:
        """InvokeEndpoint, its ``Body`` read as bytes.

        Args:
            profile: Says which errors of the container mean a lost session.
            parameters: As in the API model.

        Raises:
            ModelError: It failed.
        """
        in_session = parameters.get("SessionId", NEW_SESSION) != NEW_SESSION
        response: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(self._call_timeout):
                response = await self._client.invoke_endpoint(**parameters)
                response["Body"] = await self._read(response["Body"])
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops here
            if response is None:
                failure = failure_of(error, profile, in_session=in_session)
            else:
                failure = failure_of_reply(error)
            raise ModelError(failure) from None
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
        in_session = "SessionId" in parameters  # it opens none
        try:
            async with asyncio.timeout(self._call_timeout):
                response = await self._client.invoke_endpoint_with_response_stream(**parameters)
        except Exception as error:  # noqa: BLE001 - as above
            raise ModelError(failure_of(error, profile, in_session=in_session)) from None
        body = response["Body"]
        content = body._raw_stream.content  # noqa: SLF001 - see `gateway.sagemaker.parts`
        silence = self._client.meta.config.read_timeout
        try:
            async with (
                asyncio.timeout(self._stream_timeout),
                aclosing(payload_parts(content, read_timeout=silence)) as parts,
            ):
                yield StreamedReply(
                    parts=parts,
                    content_type=response.get("ContentType"),
                    variant=response.get("InvokedProductionVariant"),
                    custom_attributes=response.get("CustomAttributes"),
                )
        except TimeoutError:
            raise ModelError(TIMED_OUT) from None
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


class _ErrorBody:
    """Stands for the body of an answer that is an error, and reads its beginning only.

    What is cut off no longer parses, and the error then counts by its headers alone.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def read(self) -> bytes:
        """As aiohttp's, which would read however much there is."""
        try:
            beginning: bytes = await self._answer.content.readexactly(ERROR_BYTES)
        except asyncio.IncompleteReadError as all_there_is:
            return all_there_is.partial
        finally:
            self._answer.close()  # no matter to the connection of one that has been read whole
        return beginning


class _HttpSession(AIOHTTPSession):
    async def send(self, request: Any) -> Any:
        response = await super().send(request)  # type: ignore[no-untyped-call]
        if response.status_code >= 300:  # where botocore reads the whole body by itself
            response.raw = _ErrorBody(response.raw)
        return response


def _is_loopback(url: str | None) -> bool:
    """Whether an address is on this machine."""
    try:
        host = urlsplit(url or "").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@asynccontextmanager
async def runtime_client(
    *,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    max_pool_connections: int,
    connect_timeout: float,
    read_timeout: float,
    call_timeout: float,
    stream_timeout: float,
    reply_bytes: int,
) -> AsyncIterator[Runtime]:
    """A client that is closed with this context. Credentials come from AWS's usual chain.

    Args:
        region: None for that of the environment or the profile.
        profile: Of the shared configuration files; None for the default one.
        endpoint_url: Where to call in place of AWS; on this machine, past any proxy.
        max_pool_connections: How many calls can be under way at once; the others wait.
        connect_timeout: In seconds.
        read_timeout: Between one piece of an answer and the next, in seconds; a model may take 60
            to begin, and AWS advises 70.
        call_timeout: For a call as a whole, in seconds, from waiting for a connection to the last
            byte of the reply; or to the first, where it is streamed.
        stream_timeout: For a streamed reply from its first byte to its last, in seconds; SageMaker
            ends one after 480.
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
        http_session_cls=_HttpSession,
        # None leaves it to the environment, which may name a proxy for this machine's own servers.
        proxies={} if _is_loopback(endpoint_url) else None,
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
        yield Runtime(
            client,
            call_timeout=call_timeout,
            stream_timeout=stream_timeout,
            reply_bytes=reply_bytes,
        )
