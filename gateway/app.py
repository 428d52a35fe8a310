"""The composition root: builds everything from the settings, and owns its life."""

import contextlib
from collections.abc import AsyncIterator

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.routing import WebSocketRoute

from gateway.budget import ByteBudget
from gateway.config import AwsSettings, ConfigError, Settings
from gateway.route import Route
from gateway.sagemaker.checks import platform_problems
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.runtime import NotConfigured, runtime_client
from gateway.sessions import Sessions
from gateway.stores.memory import MemoryStore
from gateway.transports.asgi import PlainAsgi
from gateway.transports.origins import Origins
from gateway.transports.pages import SecurityHeaders, pages
from gateway.transports.proxies import Proxies
from gateway.transports.websocket import WebSocketEndpoint

log = structlog.stdlib.get_logger("gateway.app")


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[tuple[Starlette, Sessions]]:
    """The application and its sessions, which end with this context.

    Raises:
        ConfigError: The platform can't be called with these settings.
    """
    aws, server = settings.aws, settings.server
    async with contextlib.AsyncExitStack() as stack:
        try:
            runtime = await stack.enter_async_context(
                runtime_client(
                    region=aws.region,
                    profile=aws.profile,
                    endpoint_url=aws.endpoint_url,
                    transport=aws.transport,
                    max_pool_connections=aws.max_pool_connections,
                    connect_timeout=aws.connect_timeout_seconds,
                    read_timeout=aws.read_timeout_seconds,
                    call_timeout=aws.call_timeout_seconds,
                    stream_timeout=aws.stream_timeout_seconds,
                    reply_bytes=aws.reply_bytes,
                )
            )
        except NotConfigured as error:
            raise ConfigError(str(error)) from None
        routes = {
            name: Route(
                route.policy(name, server),
                SageMakerModel(
                    runtime,
                    route.endpoint_name,
                    route.profile,
                    route.defaults,
                    body_format=route.body_format,
                    line_bytes=aws.stream_line_bytes,
                    route=name,
                ),
            )
            for name, route in settings.routes.items()
        }
        sessions = await stack.enter_async_context(
            Sessions(
                routes,
                MemoryStore(max_sessions=settings.store.max_sessions),
                budget=ByteBudget(server.buffer_bytes),
                drain_seconds=server.drain_seconds,
                log_turns=server.log_turns,
            )
        )
        problems = sessions.spawn(log_problems(settings.aws))
        stack.callback(problems.cancel)
        yield application(settings, sessions), sessions


async def log_problems(aws: AwsSettings) -> None:
    """Say in the log why calls to the platform will fail, as far as that shows without one.

    It can take seconds, since looking for credentials can.
    """
    try:
        problems = await platform_problems(
            region=aws.region, profile=aws.profile, endpoint_url=aws.endpoint_url
        )
    except Exception as error:  # noqa: BLE001 - the gateway is there all the same
        log.warning(
            "calls to AWS may fail", why=f"looking for problems raised {type(error).__name__}"
        )
        return
    for problem in problems:
        event = "calls to AWS will fail" if problem.certain else "calls to AWS may fail"
        log.warning(event, about=problem.about, why=problem.text)


def application(settings: Settings, sessions: Sessions) -> Starlette:
    """The ASGI application."""
    endpoint = WebSocketEndpoint(
        sessions,
        origins=Origins(
            {name: route.allowed_origins for name, route in settings.routes.items()},
            public=settings.server.public_origin,
        ),
        proxies=Proxies(settings.server.trusted_proxies),
        max_connections=settings.server.max_connections,
        open_timeout=settings.server.open_timeout_seconds,
    )

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if sessions.draining:
            return PlainTextResponse("draining\n", 503)
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            WebSocketRoute("/ws", endpoint.serve),
            WebSocketRoute("/ws/{route:path}", endpoint.serve),
            HttpRoute("/ws", endpoint.explain, methods=["GET", "POST"]),
            HttpRoute("/ws/{route:path}", endpoint.explain, methods=["GET", "POST"]),
            HttpRoute("/healthz", healthz),
            HttpRoute("/readyz", readyz),
            *pages(list(settings.routes)),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(PlainAsgi)],
    )
