"""The port that Prometheus reads metrics from, where it is not the clients'."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from starlette.applications import Starlette

from gateway.config import MetricsSettings
from gateway.process import listen
from gateway.telemetry.exposition import Read, metrics_path
from gateway.transports.http import HttpProtocol
from gateway.transports.peers import Peers

CONNECTIONS = 50
"""How many there may be."""

log = structlog.stdlib.get_logger("gateway.metrics")


@contextlib.asynccontextmanager
async def metrics_port(settings: MetricsSettings, read: Read) -> AsyncIterator[None]:
    """Serve metrics for as long as this context lasts.

    Args:
        settings: Where.
        read: Finds out what metrics stand at.

    Raises:
        OSError: The address can't be listened on.
    """
    assert settings.port is not None  # noqa: S101 - as whoever calls this has seen
    with listen(settings.host, settings.port, "`port` in [metrics]") as listener:
        config = uvicorn.Config(
            Starlette(routes=[metrics_path(read)]),
            http=cast(Any, partial(HttpProtocol, peers=Peers(CONNECTIONS, lambda _: False))),
            ws="none",
            limit_concurrency=CONNECTIONS,
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        host, port = listener.getsockname()[:2]
        log.info("metrics are served", host=host, port=port)
        try:
            yield
        finally:
            server.should_exit = True
            await server.shutdown(sockets=[listener])
