"""Runs the gateway as a process with uvicorn."""

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
"""Thresholds of Python's garbage collector, whose defaults are 700, 10 and 10.

A collection of the second generation traverses up to the product of the first two, and blocks
everything else: for 50 ms, when 10,000 clients connect at once. A full one comes after 20 million
objects.
"""

MAPPED_BYTES = 1_048_576
"""Minimum size of memory blocks that are mapped separately, and unmapped when freed."""

STRANGERS = 8
"""One part in this many of `buffer_bytes` is for clients without a session, in addition to it."""

SHUTDOWN_SECONDS = 15
"""Seconds for connections to close after the gateway has drained."""

SPARE_CONNECTIONS = 100
"""Connections accepted beyond `max_connections`, for probes and to refuse clients."""

SOCKETS = 2
"""Sockets allowed to an address for each WebSocket: for requests, handshakes, connections about to
be refused, and those that are closing."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def answering(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Restrict the application to its own host names.

    That is not needed if credentials are required, since a foreign name for it gains nothing then.
    With a trusted proxy and no public URL, the proxy must check the name.
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
    """Run the gateway until SIGTERM or SIGINT, and then until it has drained.

    A second signal ends draining immediately.

    Args:
        settings: The configuration.
        on_ready: Called with the URL when connections are accepted.
        on_built: Called before that with the metrics, for a caller that exposes them.
        signals: The caller's signals, if it handles them; one received before counts.

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
                proxy_headers=False,  # uvicorn would trust any program on this machine
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
    """Log an unhandled error; asyncio's handler would also print the arguments of callbacks."""
    error = context.get("exception")
    about = {} if error is not None else {"about": printable(context["message"], 200)}
    log.error("unhandled error", exc_info=error, **about)


def _certificate(tls: TlsSettings | None) -> Certificate | None:
    """Load the certificate; returns None without TLS.

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
    """Collect cyclic garbage less often: by default, all sessions are traversed many times a
    second.

    Messages create no cycles, and those of a broken connection can wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def return_large_blocks() -> None:
    """Make glibc's allocator return the memory of large bodies to the system when they are freed.

    By default it raises the threshold for that, up to 32 MiB, with each such block that is freed; a
    threshold that is set stays. Twice that is kept at the end of the heap, as by default; otherwise
    it would be 128 KiB (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, or none
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
        malloc.mallopt(_M_TRIM_THRESHOLD, 2 * MAPPED_BYTES)


def raise_file_limit() -> None:
    """Raise the limit on open files to the maximum: each connection and each call needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems refuse their own maximum
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
