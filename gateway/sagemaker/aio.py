"""Calls through aiobotocore, which pays for everything that an AWS client can do."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from aiobotocore.httpsession import AIOHTTPSession

from gateway.sagemaker.parts import payload_parts
from gateway.sagemaker.transport import (
    ERROR_BYTES,
    Limits,
    OnEnd,
    OnHead,
    OnPayloads,
    ReplyFailed,
    StreamedReply,
    streamed_reply,
    too_large,
)
from gateway.session.ports import Call, ModelError

T = TypeVar("T")


class AioTransport:
    """See `gateway.sagemaker.transport.Transport`.

    Args:
        client: aiobotocore's, for ``sagemaker-runtime``, made with these limits and `HttpSession`.
        limits: How long calls may take, and how much they may bring.
    """

    def __init__(self, client: Any, limits: Limits) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[Any]] = set()
        self.limits = limits

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,  # noqa: ARG002 - botocore takes it itself
    ) -> Call:
        """See `Transport.invoke_endpoint`."""
        return self._run(self._invoke(parameters), on_end)

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_payloads: OnPayloads,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,  # noqa: ARG002
    ) -> Call:
        """See `Transport.invoke_endpoint_with_response_stream`."""
        return self._run(self._stream(parameters, on_head, on_payloads), on_end)

    def _run(self, call: Coroutine[Any, Any, T], on_end: OnEnd[T]) -> Call:
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)  # the loop itself may forget it
        task.add_done_callback(partial(self._ended, on_end))
        return task

    def _ended(self, on_end: OnEnd[T], task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if task.cancelling():
            return  # it came to an end of its own when it was to be cancelled
        if error is None:
            on_end(task.result())
        elif isinstance(error, Exception):  # others have gone to the loop, which they end
            on_end(error)

    async def _invoke(self, parameters: dict[str, Any]) -> dict[str, Any]:
        response: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(self.limits.call_timeout):
                response = await self._client.invoke_endpoint(**parameters)
                response["Body"] = await self._read(response["Body"])
        except ModelError:
            raise
        except Exception as error:
            if response is None:
                raise
            raise ReplyFailed(error) from None
        return response

    async def _stream(
        self, parameters: dict[str, Any], on_head: OnHead, on_payloads: OnPayloads
    ) -> StreamedReply:
        async with asyncio.timeout(self.limits.call_timeout):
            response = await self._client.invoke_endpoint_with_response_stream(**parameters)
        body = response["Body"]
        content = body._raw_stream.content  # noqa: SLF001 - see `gateway.sagemaker.parts`
        try:
            async with (
                asyncio.timeout(self.limits.stream_timeout),
                aclosing(payload_parts(content, read_timeout=self.limits.read_timeout)) as parts,
            ):
                reply = streamed_reply(response)
                on_head(reply)
                async for data in parts:
                    on_payloads([data])
        except TimeoutError as error:
            raise ReplyFailed(error) from None
        finally:
            # Nothing else does it in time: the connection would stay open, and the model at work.
            body.close()
        return reply

    async def _read(self, body: Any) -> bytes:
        whole = bytearray()
        async with body as stream:
            async for chunk in stream.iter_chunks(65_536):
                whole += chunk
                if len(whole) > self.limits.reply_bytes:
                    raise too_large(self.limits.reply_bytes)
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


class _Direct:
    """aiohttp's session, without following redirects: the one call would be made twice."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, *args: Any, **options: Any) -> Any:
        return self._session.request(*args, allow_redirects=False, **options)


class HttpSession(AIOHTTPSession):
    """aiobotocore's, that follows no redirect and reads no error's body without end.

    Attributes:
        options: What it was made with: ``verify``, ``client_cert``, ``proxies`` and the like.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.options = options

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)  # type: ignore[no-untyped-call]
        return _Direct(session)

    async def send(self, request: Any) -> Any:
        """See `AIOHTTPSession.send`."""
        response = await super().send(request)  # type: ignore[no-untyped-call]
        if response.status_code >= 300:  # where botocore reads the whole body by itself
            response.raw = _ErrorBody(response.raw)
        return response
