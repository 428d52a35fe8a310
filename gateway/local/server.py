"""The HTTP server: InvokeEndpoint for clients, and admin calls under ``/_local``."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.local.api import ApiError, InvokeEndpointModel, validation_error
from gateway.local.containers import (
    CLOSED_SESSION_ID,
    CUSTOM_ATTRIBUTES,
    NEW_SESSION_ID,
    ContainerReply,
)
from gateway.local.faults import Fault
from gateway.local.platform import Endpoint
from gateway.local.signing import Verifier

ACCESS_KEY = "local"
SECRET_KEY = "local-secret"  # noqa: S105 - opens nothing but this server, and is no secret
REGION = "us-east-1"
"""What a client signs with, unless told otherwise."""

_PASSED_BACK = ("content-type", CUSTOM_ATTRIBUTES, NEW_SESSION_ID, CLOSED_SESSION_ID)


class RuntimeApi:
    """The calls of the API and the admin calls.

    Args:
        endpoints: All there are.
        verifier: Checks signatures.
        model: Checks parameters.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], verifier: Verifier, model: InvokeEndpointModel
    ) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._verifier = verifier
        self._model = model

    async def invoke(self, request: Request) -> Response:
        """InvokeEndpoint."""
        body = await request.body()
        name = request.path_params["endpoint"]
        try:
            self._verifier.check(request.method, str(request.url), request.headers, body)
            parameters = self._model.read(request.headers, body)
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                raise validation_error(f"Endpoint {name} of account 000000000000 not found.")
            passed = {
                parameter.header: parameters[parameter.name]
                for parameter in self._model.parameters
                if parameter.name in parameters
            }
            reply = await _unless_abandoned(
                request, endpoint, endpoint.invoke(parameters, passed, body)
            )
        except ApiError as error:
            return Response(error.body, error.status, error.headers())
        headers = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
        headers["x-amzn-requestid"] = str(uuid.uuid4())
        headers["x-amzn-invoked-production-variant"] = "AllTraffic"
        return Response(reply.body, 200, headers)

    async def state(self, request: Request) -> Response:
        """``GET /_local/{endpoint}``: its instances and what has reached them."""
        endpoint = self._endpoint(request)
        return JSONResponse(
            {
                "abandoned": endpoint.abandoned,
                "instances": [
                    {
                        "name": instance.name,
                        "lost": instance.lost,
                        "sessions": endpoint.sessions[instance.name],
                        "invocations": instance.invocations,
                        "opened": instance.opened,
                        "closed": instance.closed,
                    }
                    for instance in endpoint.instances
                ],
            }
        )

    async def fault(self, request: Request) -> Response:
        """``POST /_local/{endpoint}/faults``: let something go wrong; see `Fault`."""
        endpoint = self._endpoint(request)
        endpoint.faults.add(msgspec.json.decode(await request.body(), type=Fault))
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


async def _unless_abandoned(
    request: Request, endpoint: Endpoint, answer: Coroutine[Any, Any, ContainerReply]
) -> ContainerReply:
    """The answer, unless the client goes away first; the container's work then stops too.

    The body has been read, so that all that can still be received is the disconnect.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            endpoint.abandoned += 1
            raise ApiError("ClientDisconnected", 499, "The client has gone.")
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


def _bad_admin_call(_request: Request, error: Exception) -> Response:
    return JSONResponse({"message": str(error)}, 400)


def create_app(
    endpoints: Sequence[Endpoint],
    *,
    access_key: str = ACCESS_KEY,
    secret_key: str = SECRET_KEY,
    region: str = REGION,
    body_bytes: int | None = None,
) -> Starlette:
    """The ASGI application.

    Args:
        endpoints: What it serves.
        access_key: Whose signatures it takes.
        secret_key: Likewise.
        region: Where they must be made for.
        body_bytes: The largest body; None for the API model's limit.
    """
    verifier = Verifier(access_key=access_key, secret_key=secret_key, region=region)
    api = RuntimeApi(endpoints, verifier, InvokeEndpointModel(body_bytes))
    return Starlette(
        routes=[
            Route("/endpoints/{endpoint}/invocations", api.invoke, methods=["POST"]),
            Route("/_local/{endpoint}", api.state),
            Route("/_local/{endpoint}/faults", api.fault, methods=["POST"]),
            Route("/_local/{endpoint}/instances/{instance}/lose", api.lose, methods=["POST"]),
            Route("/_local/{endpoint}/instances/{instance}/restore", api.restore, methods=["POST"]),
        ],
        exception_handlers={
            ApiError: _bad_admin_call,
            msgspec.ValidationError: _bad_admin_call,
            msgspec.DecodeError: _bad_admin_call,
        },
    )


class _Server(uvicorn.Server):
    """A server whose signals are somebody else's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


@contextlib.asynccontextmanager
async def running(
    endpoints: Sequence[Endpoint], *, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[str]:
    """Serve within this context; gives the address.

    Args:
        endpoints: What to serve.
        host: A loopback address.
        port: 0 for any that is free.
        options: As for `create_app`.

    Raises:
        OSError: The address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
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
                for instance in endpoint.instances:
                    await instance.container.close()
