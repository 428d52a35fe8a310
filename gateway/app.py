"""The composition root: builds everything from the settings, and owns its life."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Self

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp

from gateway.config import AwsSettings, ConfigError, Settings
from gateway.runner import Route
from gateway.sagemaker.checks import platform_problems
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.runtime import NotConfigured, runtime_client
from gateway.sessions import Sessions
from gateway.stores.memory import MemoryStore
from gateway.transports.hosts import Hosts
from gateway.transports.origins import Origins
from gateway.transports.pages import SecurityHeaders, pages
from gateway.transports.proxies import Proxies
from gateway.transports.server import HttpProtocol, Server, WebSocketProtocol
from gateway.transports.websocket import WebSocketEndpoint

GC_THRESHOLDS = (10_000, 5, 400)
"""Of Python's garbage collector; its own are 700, 10 and 10.

A run of the second generation walks up to the product of the first two, and nothing else goes on
meanwhile: 50 ms, where 10,000 clients connect at once. A full one comes after 20 million objects.
"""

SHUTDOWN_SECONDS = 15
"""How long connections may take to go after the gateway has drained."""

_INSTEAD = {
    errno.EADDRINUSE: ". Stop what listens there, or choose another with --port; 0 takes any free",
    errno.EACCES: ". Choose one from 1024 on with --port; 0 takes any free",
}

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = structlog.stdlib.get_logger("gateway.app")


def configure_logging(level: str, form: str) -> None:
    """Log to standard error, the gateway's own lines and the libraries' alike.

    Args:
        level: The least level that is logged.
        form: ``console`` for people, ``json`` for machines.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            # The default shows local variables where rich is installed: bodies and credentials.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(_without_the_sdks_tracebacks)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderer,
            ],
        )
    )
    # It would log a traceback of every text frame that is not UTF-8, which any client can send.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: not str(record.msg).startswith("Invalid UTF-8")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logging.getLogger("gateway").setLevel(level)


def _without_the_sdks_tracebacks(record: logging.LogRecord) -> bool:
    """Theirs are of credentials, and quote what a program that was to give them has written."""
    sdk = record.name.startswith(("botocore.", "aiobotocore."))
    if sdk and record.exc_info and record.exc_info[0]:
        record.msg = f"{record.msg} ({record.exc_info[0].__name__})"
        record.exc_info = None
    return True


class Signals:
    """SIGINT and SIGTERM, for as long as this context lasts.

    Attributes:
        came: Whether there has been one.
        handle: Called for each.
    """

    def __init__(self, handle: Callable[[], None] = lambda: None) -> None:
        self.came = False
        self.handle = handle

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _take(self) -> None:
        self.came = True
        self.handle()


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[tuple[Starlette, Sessions]]:
    """The application and its sessions, which end with this context."""
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
                ),
            )
            for name, route in settings.routes.items()
        }
        sessions = await stack.enter_async_context(
            Sessions(
                routes,
                MemoryStore(max_sessions=settings.store.max_sessions),
                drain_seconds=server.drain_seconds,
                log_turns=server.log_turns,
            )
        )
        yield application(settings, sessions), sessions


async def tell_problems(aws: AwsSettings) -> None:
    """Tell the operator why calls to the platform will fail, as far as that shows without one.

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
        middleware=[Middleware(SecurityHeaders)],
    )


def answering(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application, at the names that are its own.

    Behind a proxy that is trusted to say its own name, that is for the proxy to see to.
    """
    server = settings.server
    if server.trusted_proxies and server.public_url is None:
        return app
    origins = {origin for route in settings.routes.values() for origin in route.allowed_origins}
    return Hosts(app, origins if server.public_origin is None else {*origins, server.public_origin})


async def serve(
    settings: Settings, *, on_ready: Callable[[str], None], signals: Signals | None = None
) -> None:
    """Run the gateway until it is told to stop by SIGTERM or SIGINT, and has drained.

    A second signal ends the draining at once.

    Args:
        settings: All of them.
        on_ready: Called with the address once connections are taken.
        signals: Those of whoever does more than serve; one that came before is heeded.

    Raises:
        ConfigError: The platform can't be called with these settings.
        OSError: The address can't be listened on.
    """
    configure_logging(settings.server.log_level, settings.server.log_format)
    raise_file_limit()
    tune_garbage_collection()
    with contextlib.ExitStack() as stack:
        if signals is None:
            signals = stack.enter_context(Signals())
        listener = stack.enter_context(listen(settings.server.host, settings.server.port))
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        async with build(settings) as (app, sessions):
            config = uvicorn.Config(
                answering(app, settings),
                loop="none",
                http=HttpProtocol,
                ws=WebSocketProtocol,
                ws_max_size=max(route.message_bytes for route in settings.routes.values()),
                ws_ping_interval=settings.server.heartbeat_seconds,
                ws_per_message_deflate=False,
                lifespan="off",
                proxy_headers=False,  # uvicorn would believe whoever is on this machine
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                server_header=False,
                date_header=False,
            )
            server = Server(config, drain=sessions.drain, ready=lambda: on_ready(url))

            def stop() -> None:
                if server.should_exit:
                    sessions.stop_draining()
                server.should_exit = True

            signals.handle = stop
            if not signals.came:
                telling = sessions.spawn(tell_problems(settings.aws))
                try:
                    await server.serve(sockets=[listener])
                finally:
                    telling.cancel()


def tune_garbage_collection() -> None:
    """Look for cyclic garbage less often: the default walks every session a few times a second.

    A message leaves no cycles behind; what a broken connection leaves can wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def raise_file_limit() -> None:
    """Allow as many open files as the system does: each connection is one, each call another."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems refuse their own limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        OSError: It can't be had; the text says where, why, and what to do.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    try:
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        number = error.errno or 0
        text = f"can't listen on {host}, port {port}: {os.strerror(number)}"
        raise OSError(number, text + _INSTEAD.get(number, "")) from None
