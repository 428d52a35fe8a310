"""The HTTP server: API calls, and admin calls under ``/_local``."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.local import eventstream
from gateway.local.api import ApiError, InputModel, access_denied, validation_error
from gateway.local.containers import (
    CLOSED_SESSION_ID,
    CUSTOM_ATTRIBUTES,
    INFERENCE_ID,
    NEW_SESSION_ID,
)
from gateway.local.faults import Fault
from gateway.local.names import OwnPagesOnly
from gateway.local.notices import Queue, QueueApi
from gateway.local.objects import Bucket, ObjectApi
from gateway.local.platform import Endpoint
from gateway.local.signing import Verifier
from gateway.local.streaming import Stream, StreamFailure
from gateway.local.visits import ClientGone, unless_gone

ACCESS_KEY = "local"
SECRET_KEY = "local-secret"  # noqa: S105 - public, and valid for this server only
REGION = "us-east-1"
"""Defaults of what clients sign with."""

CUT_SECONDS = 0.05
"""Time for the data before a cut to arrive."""

_PASSED_ON = ("content-type", "accept", CUSTOM_ATTRIBUTES, INFERENCE_ID)
_PASSED_BACK = ("content-type", CUSTOM_ATTRIBUTES, NEW_SESSION_ID, CLOSED_SESSION_ID)


T = TypeVar("T")


class Expiry(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an admin call to ``/_local/{endpoint}/expire``.

    Attributes:
        session: The session to expire; None for all of them.
    """

    session: str | None = None


class RuntimeApi:
    """The API calls and the admin calls.

    Args:
        endpoints: All endpoints.
        verifier: Checks signatures.
        body_bytes: Maximum size of a body; None for the API model's.
        bucket: Objects of asynchronous calls.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        verifier: Verifier,
        body_bytes: int | None,
        bucket: Bucket,
    ) -> None:
        self._bucket = bucket
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._verifier = verifier
        self._invoke = InputModel("InvokeEndpoint", body_bytes)
        self._stream = InputModel("InvokeEndpointWithResponseStream", body_bytes)
        self._later = InputModel("InvokeEndpointAsync")

    async def invoke(self, request: Request) -> Response:
        """InvokeEndpoint."""
        try:
            endpoint, parameters, passed, body = await self._read(request, self._invoke)
            reply = await _unless_abandoned(
                request.receive, endpoint, endpoint.invoke(parameters, passed, body)
            )
        except ApiError as error:
            return _refusal(error)
        except ClientGone:
            return Response(status_code=499)
        headers = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
        return Response(reply.body, 200, headers | _platform_headers())

    async def invoke_later(self, request: Request) -> Response:
        """InvokeEndpointAsync."""
        try:
            endpoint, parameters, passed, body = await self._read(request, self._later)
            passed = {name: passed[name] for name in _PASSED_ON if name in passed}
            accepted = await endpoint.invoke_later(parameters, passed, body)
        except ApiError as error:
            return _refusal(error)
        headers = {"x-amzn-sagemaker-outputlocation": accepted.output_location}
        if accepted.failure_location is not None:
            headers["x-amzn-sagemaker-failurelocation"] = accepted.failure_location
        answer = {"InferenceId": accepted.inference_id}
        return JSONResponse(answer, 202, headers | {"x-amzn-requestid": str(uuid.uuid4())})

    async def stream(self, request: Request) -> Response:
        """InvokeEndpointWithResponseStream."""
        try:
            endpoint, parameters, passed, body = await self._read(request, self._stream)
            stream = await _unless_abandoned(
                request.receive, endpoint, endpoint.stream(parameters, passed, body)
            )
        except ApiError as error:
            return _refusal(error)
        except ClientGone:
            return Response(status_code=499)
        return EventStreamResponse(endpoint, stream)

    async def _read(
        self, request: Request, model: InputModel
    ) -> tuple[Endpoint, Mapping[str, str], Mapping[str, str], bytes]:
        """Read a call: its endpoint, parameters, headers for the container, and body.

        Raises:
            ApiError: It is not valid.
        """
        body = await request.body()
        self._verifier.check(request.method, str(request.url), request.headers, body)
        parameters = model.read(request.headers, body)
        name = request.path_params["endpoint"]
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise validation_error(f"Endpoint {name} of account 000000000000 not found.")
        if model.operation in endpoint.faults.denies:
            raise access_denied(model.operation, name)
        return endpoint, parameters, model.passed(parameters), body

    async def state(self, request: Request) -> Response:
        """``GET /_local/{endpoint}``: show its instances and their counts."""
        endpoint = self._endpoint(request)
        return JSONResponse(
            {
                "abandoned": endpoint.abandoned,
                "streams": endpoint.streams,
                **_counts(endpoint),
                "instances": [
                    {
                        "name": instance.name,
                        "lost": instance.lost,
                        "sessions": endpoint.sessions[instance.name],
                        "invocations": instance.invocations,
                        "opened": instance.opened,
                        "closed": instance.closed,
                        "in_flight": instance.in_flight,
                        "turns": instance.container.turns,
                    }
                    for instance in endpoint.instances
                ],
            }
        )

    async def fault(self, request: Request) -> Response:
        """``POST /_local/{endpoint}/faults``: inject a fault; see `Fault`."""
        endpoint = self._endpoint(request)
        fault = msgspec.json.decode(await request.body(), type=Fault)
        endpoint.faults.add(fault)
        if fault.lists is not None:
            self._bucket.lists = fault.lists
        return Response(status_code=204)

    async def expire(self, request: Request) -> Response:
        """``POST /_local/{endpoint}/expire``: expire sessions; see `Expiry`."""
        endpoint = self._endpoint(request)
        asked = msgspec.json.decode(await request.body() or b"{}", type=Expiry)
        endpoint.expire(asked.session)
        return Response(status_code=204)

    async def lose(self, request: Request) -> Response:
        """``POST /_local/{endpoint}/instances/{instance}/lose``."""
        self._endpoint(request).lose(request.path_params["instance"])
        return Response(status_code=204)

    async def restore(self, request: Request) -> Response:
        """``POST /_local/{endpoint}/instances/{instance}/restore``."""
        self._endpoint(request).restore(request.path_params["instance"])
        return Response(status_code=204)

    def _endpoint(self, request: Request) -> Endpoint:
        name = request.path_params["endpoint"]
        if name not in self._endpoints:
            raise validation_error(f"No endpoint {name}.")
        return self._endpoints[name]


class EventStreamResponse(Response):
    """A streamed reply in the event stream encoding.

    Args:
        endpoint: Counts the call if its client disconnects.
        stream: Yields the parts.
    """

    def __init__(self, endpoint: Endpoint, stream: Stream) -> None:
        headers = {
            name.replace("content-type", "x-amzn-sagemaker-content-type"): stream.headers[name]
            for name in ("content-type", CUSTOM_ATTRIBUTES)
            if name in stream.headers
        }
        super().__init__(headers=headers | _platform_headers(), media_type=eventstream.CONTENT_TYPE)
        del self.headers["content-length"]
        self._endpoint = endpoint
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, and end the response as the stream ends."""
        del scope

        async def body(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def deliver(part: bytes) -> None:
            await body(eventstream.payload_part(part))

        async with contextlib.aclosing(self._stream):
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": self.raw_headers,
                }
            )
            try:
                await _unless_abandoned(receive, self._endpoint, self._stream.run(deliver))
            except ClientGone:
                return
            except StreamFailure as failure:
                if not failure.kind:
                    # A client may drop data that it has not read when it sees the connection close.
                    await asyncio.sleep(CUT_SECONDS)
                    await body(eventstream.payload_part(b"lost")[:50])
                    await asyncio.sleep(CUT_SECONDS)
                    return  # the server closes the connection of an incomplete response
                await body(eventstream.exception(failure.kind, failure.body))
            await body(b"", more=False)


async def _unless_abandoned(
    receive: Receive, endpoint: Endpoint, work: Coroutine[Any, Any, T]
) -> T:
    """Return the result of this work; count a client that disconnects first. See `unless_gone`."""
    try:
        return await unless_gone(receive, work)
    except ClientGone:
        endpoint.abandoned += 1
        raise


def _counts(endpoint: Endpoint) -> dict[str, int]:
    """Return the counts of an asynchronous endpoint."""
    queue = endpoint.asynchronous
    return {} if queue is None else {"submitted": queue.submitted, "ended": queue.ended}


def _platform_headers() -> dict[str, str]:
    return {
        "x-amzn-requestid": str(uuid.uuid4()),
        "x-amzn-invoked-production-variant": "AllTraffic",
    }


def _refusal(error: ApiError) -> Response:
    return Response(error.body, error.status, error.headers())


def _bad_admin_call(_request: Request, error: Exception) -> Response:
    return JSONResponse({"message": str(error)}, 400)


def create_app(
    endpoints: Sequence[Endpoint],
    *,
    access_key: str = ACCESS_KEY,
    secret_key: str = SECRET_KEY,
    region: str = REGION,
    clock_seconds: float = 0.0,
    body_bytes: int | None = None,
    bucket: Bucket | None = None,
    queue: Queue | None = None,
) -> Starlette:
    """Create the ASGI application.

    Args:
        endpoints: The endpoints to serve.
        access_key: id of the access key that requests must be signed with.
        secret_key: Its secret.
        region: Region that requests must be signed for.
        clock_seconds: How far this server's clock is ahead of the machine's.
        body_bytes: Maximum size of a body; None for the API model's.
        bucket: Objects of asynchronous calls, served as S3 under ``/_s3``.
        queue: Their notifications, served as SQS at ``/_sqs``.
    """

    def verifier(service: str) -> Verifier:
        return Verifier(
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            service=service,
            clock_seconds=clock_seconds,
        )

    bucket = Bucket() if bucket is None else bucket
    api = RuntimeApi(endpoints, verifier("sagemaker"), body_bytes, bucket)
    objects = ObjectApi(bucket, verifier("s3"))
    notices = QueueApi(Queue() if queue is None else queue, verifier("sqs"))
    return Starlette(
        routes=[
            Route("/endpoints/{endpoint}/invocations", api.invoke, methods=["POST"]),
            Route("/endpoints/{endpoint}/async-invocations", api.invoke_later, methods=["POST"]),
            Route("/_s3/{path:path}", objects.call, methods=["GET", "HEAD", "PUT"]),
            Route("/_sqs", notices.call, methods=["POST"]),
            Route(
                "/endpoints/{endpoint}/invocations-response-stream", api.stream, methods=["POST"]
            ),
            Route("/_local/{endpoint}", api.state),
            Route("/_local/{endpoint}/faults", api.fault, methods=["POST"]),
            Route("/_local/{endpoint}/expire", api.expire, methods=["POST"]),
            Route("/_local/{endpoint}/instances/{instance}/lose", api.lose, methods=["POST"]),
            Route("/_local/{endpoint}/instances/{instance}/restore", api.restore, methods=["POST"]),
        ],
        exception_handlers={
            ApiError: _bad_admin_call,
            msgspec.ValidationError: _bad_admin_call,
            msgspec.DecodeError: _bad_admin_call,
        },
        middleware=[Middleware(OwnPagesOnly)],
    )


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


@contextlib.asynccontextmanager
async def running(
    endpoints: Sequence[Endpoint], *, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[str]:
    """Serve within this context; yields the URL.

    Args:
        endpoints: The endpoints to serve.
        host: A loopback address.
        port: The port; 0 for any free one.
        options: As for `create_app`.

    Raises:
        OSError: The address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named because asyncio disables Nagle's algorithm only for sockets with this protocol.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        config = uvicorn.Config(
            create_app(endpoints, **options),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=20,  # as AWS
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            name = f"[{host}]" if ":" in host else host
            yield f"http://{name}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
            for endpoint in endpoints:
                if endpoint.asynchronous is not None:
                    await endpoint.asynchronous.close()
                for instance in endpoint.instances:
                    await instance.container.close()
