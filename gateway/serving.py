"""Runs the gateway as a process, with its limits and uvicorn."""

import asyncio
import contextlib
import ctypes
import gc
import resource
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from gateway.app import build, replica_name
from gateway.budget import ByteBudget
from gateway.config import ConfigError, Settings, TlsSettings
from gateway.logconfig import configure_logging
from gateway.logs import printable
from gateway.process import BACKLOG, Signals, listen, share
from gateway.security.certificates import Certificate, CertificateError
from gateway.telemetry.metrics import Metrics
from gateway.transports.hosts import Hosts
from gateway.transports.http import HttpProtocol
from gateway.transports.peers import Peers
from gateway.transports.protocol import WebSocketProtocol
from gateway.transports.proxies import Proxies
from gateway.transports.server import DrainingServer
from gateway.transports.sockets import HANDSHAKES
from gateway.transports.tls import encrypted
from gateway.turnstile import Turnstile

log = structlog.stdlib.get_logger("gateway.serving")

GC_THRESHOLDS = (10_000, 5, 400)
"""Of Python's garbage collector; its own are 700, 10 and 10.

A run of the second generation walks up to the product of the first two, and nothing else goes on
meanwhile: 50 ms, where 10,000 clients connect at once. A full one comes after 20 million objects.
"""

MAPPED_BYTES = 1_048_576
"""From which size on memory comes from the system, and goes back to it when it is freed."""

STRANGERS = 8
"""One in so many of `buffer_bytes` is for clients before they have a session; it comes on top."""

SHUTDOWN_SECONDS = 15
"""How long connections may take to go after the gateway has drained."""

SPARE_CONNECTIONS = 100
"""How many more than `max_connections` are taken, for probes and to say that it is full."""

SOCKETS = 2
"""How many sockets an address may have for each WebSocket: there are those for requests, for
handshakes, for who is told to be one too many, and those that are closed and not gone yet."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # in glibc's malloc.h


def answering(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application, at the names that are its own.

    Where everybody has to say who they are, another's name for it gains nothing. Behind a proxy
    that is trusted to say its own name, that is for the proxy to see to.
    """
    server = settings.server
    if settings.auth.required or (server.trusted_proxies and server.public_url is None):
        return app
    origins = {origin for route in settings.routes.values() for origin in route.allowed_origins}
    return Hosts(app, origins if server.public_origin is None else {*origins, server.public_origin})


async def serve(
    settings: Settings,
    *,
    on_ready: Callable[[str], None],
    on_built: Callable[[Metrics], None] = lambda _: None,
    signals: Signals | None = None,
) -> None:
    """Run the gateway until it is told to stop by SIGTERM or SIGINT, and has drained.

    A second signal ends the draining at once.

    Args:
        settings: All of them.
        on_ready: Called with the address once connections are taken.
        on_built: Called before that with what reads metrics, for who has no port for them.
        signals: Those of whoever does more than serve; one that was received before counts.

    Raises:
        ConfigError: The platform can't be called with these settings, or a file can't be used.
        OSError: The address can't be listened on.
    """
    replica = replica_name(settings)
    configure_logging(settings.server.log_level, settings.server.log_format, replica)
    asyncio.get_running_loop().set_exception_handler(_report)
    certificate = _certificate(settings.tls)
    raise_file_limit()
    tune_garbage_collection()
    return_large_blocks()
    with contextlib.ExitStack() as stack:
        if signals is None:
            signals = stack.enter_context(Signals())
        socket_of = listen if settings.server.workers == 1 else share
        listener = stack.enter_context(socket_of(settings.server.host, settings.server.port))
        host, port = listener.getsockname()[:2]
        scheme = "http" if certificate is None else "https"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        async with build(settings, replica) as built:
            app, sessions, reloader = built.app, built.sessions, built.reloader
            on_built(built.metrics)
            if certificate is not None:
                reloader.add(certificate.files, certificate.reload)
            peers = Peers(
                SOCKETS * settings.limits.connections_per_address,
                Proxies(settings.server.trusted_proxies).trusts,
            )
            config = uvicorn.Config(
                answering(app, settings),
                loop="none",
                http=cast(
                    Any,
                    partial(HttpProtocol, peers=peers)
                    if certificate is None
                    else encrypted(HttpProtocol, certificate.context, peers),
                ),
                ws=cast(
                    Any,
                    partial(
                        WebSocketProtocol,
                        budget=sessions.budget,
                        strangers=ByteBudget(settings.server.buffer_bytes // STRANGERS),
                        turnstile=Turnstile(HANDSHAKES),
                    ),
                ),
                limit_concurrency=settings.server.max_connections + SPARE_CONNECTIONS,
                ws_max_size=max(route.message_bytes for route in settings.routes.values()),
                ws_ping_interval=settings.server.heartbeat_seconds,
                ws_per_message_deflate=False,
                lifespan="off",
                proxy_headers=False,  # uvicorn would believe whoever is on this machine
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                server_header=False,
                date_header=False,
            )
            server = DrainingServer(
                config,
                drain=sessions.drain,
                ready=lambda: on_ready(url),
            )

            stopped = False

            def stop() -> None:
                nonlocal stopped
                if stopped:
                    sessions.stop_draining()
                stopped = True
                drain()

            def drain() -> None:
                server.should_exit = True

            built.console.on_drain = drain
            signals.handle, signals.reload = stop, reloader.load
            if not signals.received:
                await server.serve(sockets=[listener])


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what no code has handled; asyncio would print the arguments of a callback too."""
    error = context.get("exception")
    about = {} if error is not None else {"about": printable(context["message"], 200)}
    log.error("unhandled error", exc_info=error, **about)


def _certificate(tls: TlsSettings | None) -> Certificate | None:
    """What connections are encrypted with; None where they are not.

    Raises:
        ConfigError: The files can't be used.
    """
    if tls is None:
        return None
    try:
        return Certificate(tls.cert_file, tls.key_file)
    except CertificateError as error:
        raise ConfigError(str(error)) from None


def tune_garbage_collection() -> None:
    """Look for cyclic garbage less often: the default walks every session a few times a second.

    A message leaves no cycles behind; what a broken connection leaves can wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def return_large_blocks() -> None:
    """Let go of the memory of large bodies with them, where the C library is glibc.

    It raises by itself the size from which it does, up to 32 MiB, with each such block that is
    freed; a size that is set stays. What it keeps at hand of the heap's end is twice that, as where
    it chooses by itself; otherwise it would be 128 KiB (mallopt(3), M_MMAP_THRESHOLD and
    M_TRIM_THRESHOLD).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # there is another, or none
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
        malloc.mallopt(_M_TRIM_THRESHOLD, 2 * MAPPED_BYTES)


def raise_file_limit() -> None:
    """Allow as many open files as the system does: each connection is one, each call another."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems refuse their own limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
