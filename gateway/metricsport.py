"""A separate port for Prometheus to scrape metrics from."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from starlette.applications import Starlette

from gateway.addresses import is_loopback
from gateway.config import MetricsSettings
from gateway.process import listen
from gateway.telemetry.exposition import Read, metrics_path
from gateway.transports.hosts import Hosts
from gateway.transports.http import HttpProtocol
from gateway.transports.peers import Peers

CONNECTIONS, OF_ONE_ADDRESS = 50, 5
"""Maximum number of connections, in all and from one address."""

log = structlog.stdlib.get_logger("gateway.metrics")


@contextlib.asynccontextmanager
async def metrics_port(settings: MetricsSettings, read: Read) -> AsyncIterator[None]:
    """Serve metrics for as long as the context lasts.

    Args:
        settings: The address and port.
        read: Reads the metrics.

    Raises:
        OSError: The address can't be listened on.
    """
    assert settings.port is not None  # noqa: S101 - checked by the caller
    with listen(settings.host, settings.port, "`port` in [metrics]") as listener:
        peers = Peers(OF_ONE_ADDRESS, lambda _: False)
        app = Starlette(routes=[metrics_path(read)])
        config = uvicorn.Config(
            Hosts(app) if is_loopback(settings.host) else app,
            http=cast(Any, partial(HttpProtocol, peers=peers)),
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
