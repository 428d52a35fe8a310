"""A transport that calls through aiobotocore, which works everywhere but is slower than `lean`."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

from gateway.sagemaker.budget import ReadBudget
from gateway.sagemaker.exceptions import NotSentInTime, ReplyFailed
from gateway.sagemaker.replies import ReplyReader
from gateway.sagemaker.transport import (
    ERROR_BYTES,
    CallLimits,
    OnEnd,
    OnHead,
    StreamedReply,
    streamed_reply,
    too_large,
)
from gateway.session.ports import Call, ModelError, OnParts

T = TypeVar("T")


class AioTransport:
    """See `gateway.sagemaker.transport.Transport`.

    Args:
        client: An aiobotocore client for ``sagemaker-runtime``, with `HttpSession` and these
            timeouts.
        limits: Limits of time and size.
    """

    def __init__(self, client: Any, limits: CallLimits) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[Any]] = set()
        self.limits = limits
        self.budget = ReadBudget(asyncio.get_running_loop())

    def invoke_endpoint(
        self,
        parameters: dict[str, Any],
        on_end: OnEnd[dict[str, Any]],
        *,
        sha256: bytes | None = None,  # noqa: ARG002 - botocore computes it itself
    ) -> Call:
        """See `Transport.invoke_endpoint`."""
        return self._run(self._invoke(parameters), on_end)

    def invoke_endpoint_async(
        self, parameters: dict[str, Any], on_end: OnEnd[dict[str, Any]]
    ) -> Call:
        """Call InvokeEndpointAsync.

        Args:
            parameters: The API model's parameters.
            on_end: Called with the members of its output.
        """
        return self._run(self._submit(parameters), on_end)

    def invoke_endpoint_with_response_stream(
        self,
        parameters: dict[str, Any],
        on_head: OnHead,
        on_parts: OnParts,
        on_end: OnEnd[StreamedReply],
        *,
        sha256: bytes | None = None,  # noqa: ARG002
    ) -> Call:
        """See `Transport.invoke_endpoint_with_response_stream`."""
        reader = ReplyReader(self.budget, on_head, on_parts, on_end)

        def ended(result: Exception | None) -> None:
            reader.end(result)

        source = _Source()
        reader.source = source
        source.task = self._run(self._stream(parameters, reader, source), ended)
        return reader

    def _run(self, call: Coroutine[Any, Any, T], on_end: OnEnd[T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(partial(self._ended, on_end))
        return task

    def _ended(self, on_end: OnEnd[T], task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if task.cancelling():
            return  # it ended by itself while it was being cancelled
        if error is None:
            on_end(task.result())
        elif isinstance(error, Exception):  # others propagate to the loop, and end it
            on_end(error)

    async def _invoke(self, parameters: dict[str, Any]) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + self.limits.call_timeout
        response = await self._send(self._client.invoke_endpoint, parameters, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                response["Body"] = await self._read(response["Body"])
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - any error here means that
            raise ReplyFailed(error) from None
        return response

    async def _submit(self, parameters: dict[str, Any]) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + self.limits.call_timeout
        return await self._send(self._client.invoke_endpoint_async, parameters, deadline)

    async def _stream(
        self, parameters: dict[str, Any], reader: ReplyReader, source: "_Source"
    ) -> None:
        deadline = asyncio.get_running_loop().time() + self.limits.call_timeout
        method = self._client.invoke_endpoint_with_response_stream
        response = await self._send(method, parameters, deadline)
        body = response["Body"]
        content = body._raw_stream.content  # noqa: SLF001 - see `gateway.sagemaker.payloads`
        try:
            async with asyncio.timeout(self.limits.stream_timeout):
                reader.begin(streamed_reply(response))
                while data := await self._next(content):
                    reader.feed(data)
                    await source.resumed.wait()
        except Exception as error:  # noqa: BLE001 - any error here means that
            raise ReplyFailed(error) from None
        finally:
            # Nothing else closes it in time: the connection would stay open, and the model busy.
            body.close()

    async def _send(
        self, method: Callable[..., Any], parameters: dict[str, Any], deadline: float
    ) -> dict[str, Any]:
        """Make a call, up to the head of a successful reply."""
        sending = _Sending()
        _SENDING.set(sending)  # the context is this task's own
        try:
            async with asyncio.timeout_at(deadline):
                response: dict[str, Any] = await method(**parameters)
        except TimeoutError as error:
            if sending.begun:
                raise
            raise NotSentInTime(error) from None
        return response

    async def _next(self, content: aiohttp.StreamReader) -> bytes:
        # aiohttp has this timeout too, but drops it if what follows is not a chunk: its C parser
        # then reports nothing, and the reader would wait forever.
        async with asyncio.timeout(self.limits.read_timeout):
            return await content.readany()

    async def _read(self, body: Any) -> bytes:
        whole = bytearray()
        async with body as stream:
            async for chunk in stream.iter_chunks(65_536):
                whole += chunk
                if len(whole) > self.limits.reply_bytes:
                    raise too_large(self.limits.reply_bytes)
        return bytes(whole)


class _ErrorBody:
    """Wraps the body of an error response, and reads only its beginning.

    A truncated body doesn't parse, so the error is then classified by its headers alone.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def read(self) -> bytes:
        """Like aiohttp's, which would read a body of any size."""
        try:
            beginning: bytes = await self._answer.content.readexactly(ERROR_BYTES)
        except asyncio.IncompleteReadError as all_there_is:
            return all_there_is.partial
        finally:
            self._answer.close()  # doesn't affect the connection if the body was read completely
        return beginning


class _Source:
    """The task that reads a body."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.resumed = asyncio.Event()
        self.resumed.set()

    def pause_reading(self) -> None:
        self.resumed.clear()

    def resume_reading(self) -> None:
        self.resumed.set()

    def cancel(self) -> None:
        self.task.cancel()


class _Sending:
    """Whether any of a request may have been sent; until then it waits for a connection."""

    begun = False


_SENDING: ContextVar[_Sending] = ContextVar("_SENDING")


async def _connected(_session: object, context: Any, _parameters: object) -> None:
    """Called by aiohttp once a request has a connection, before it is written."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.begun = True


def _watch(session: aiohttp.ClientSession) -> None:
    """Have aiohttp report when requests get a connection."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_connected)
    trace.on_connection_reuseconn.append(_connected)
    trace.freeze()
    session.trace_configs.append(trace)


class _Direct:
    """aiohttp's session, without redirects, which would repeat a call and send its security token
    to another host.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, *args: Any, **options: Any) -> Any:
        options["trace_request_ctx"] = _SENDING.get(None)  # only calls to the model are watched
        return self._session.request(*args, allow_redirects=False, **options)


class HttpSession(AIOHTTPSession):
    """aiobotocore's HTTP session, without redirects and with a limit for the bodies of errors.

    Args:
        on_options: Called with `options`.
        options: ``verify``, ``client_cert``, ``proxies`` and the like.
    """

    def __init__(self, *, on_options: Callable[[dict[str, Any]], object], **options: Any) -> None:
        super().__init__(**options)
        on_options(options)

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)  # type: ignore[no-untyped-call]
        if not session.trace_configs:
            _watch(session)
        return _Direct(session)

    async def send(self, request: Any) -> Any:
        """See `AIOHTTPSession.send`."""
        response = await super().send(request)  # type: ignore[no-untyped-call]
        if response.status_code >= 300:  # botocore reads the whole body of these
            response.raw = _ErrorBody(response.raw)
        return response
