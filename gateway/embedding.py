"""The gateway as an ASGI application, for any server, or mounted in another application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextvars import Context

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.app import build
from gateway.config import Settings
from gateway.logconfig import log_to_logging


class _Running:
    """A running gateway, in a task of its own.

    Contexts must be left in the task that has entered them, and the call that starts the gateway is
    not the one that ends it.

    Args:
        settings: The configuration.

    Attributes:
        app: Future application, available when it has started.
        users: Number of lifespans that use it.
    """

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.app: asyncio.Future[ASGIApp] = self.loop.create_future()
        self.users = 0
        self._end = asyncio.Event()
        # In an empty context: it must not inherit anything from the current call.
        self._task = self.loop.create_task(self._run(settings), context=Context())

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or failed to start."""
        return self._task.done() or self.loop.is_closed()

    @property
    def is_ending(self) -> bool:
        """Whether it no longer accepts new sessions."""
        return self._end.is_set()

    async def _run(self, settings: Settings) -> None:
        try:
            async with build(settings, embedded=True) as built:
                self.app.set_result(built.app)
                await self._end.wait()
                await built.sessions.drain()
        except Exception as error:
            if self.app.done():
                raise
            self.app.set_exception(error)

    async def end(self) -> None:
        """Drain and stop; immediately if this is cancelled."""
        self._end.set()
        await self._task


class Gateway:
    """An ASGI application that starts and stops with a lifespan.

    That is the server's lifespan, if a server runs it directly. An application that mounts it
    passes the lifespan on with `lifespan`; otherwise the gateway starts with the first request, and
    stops with the event loop, without draining.

    Args:
        settings: The configuration; where and how the server listens is ignored.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: _Running | None = None
        self._lifespans = Router(lifespan=self.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification.

        Raises:
            ConfigError: The gateway can't be started with its settings.
        """
        if scope["type"] == "lifespan":
            await self._lifespans(scope, receive, send)
            return
        app = await asyncio.shield(self._start().app)
        await app(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Run for as long as the context lasts, then drain.

        Pass it to Starlette or FastAPI directly, or enter it in your own lifespan::

            app = FastAPI(lifespan=gateway.lifespan)
            app.mount("/chat", gateway)

        Raises:
            ConfigError: The platform can't be called with these settings.
        """
        if self._running is not None and self._running.is_ending:
            # The previous one still serves its sessions until they have ended, but accepts no new
            # ones.
            self._running = None
        running = self._start()
        running.users += 1
        try:
            await asyncio.shield(running.app)
            yield
        finally:
            running.users -= 1
            if not running.users:
                await running.end()

    def _start(self) -> _Running:
        """Return the instance that runs in this event loop, or start one."""
        running = self._running
        if running is None or running.is_over or running.loop is not asyncio.get_running_loop():
            running = self._running = _Running(self._settings)
        return running


def create_app(settings: Settings) -> Gateway:
    """Create the gateway as an ASGI application, including its pages, for any server and any path.

    ::

        from gateway import Settings, create_app

        app = create_app(Settings.load("gateway.toml"))

    It logs to `logging`, with loggers below ``gateway``, or to structlog if the application has
    configured it.

    Args:
        settings: The configuration; ``host``, ``port``, ``workers``, ``log_level`` and
            ``log_format`` have no effect.
    """
    log_to_logging()
    return Gateway(settings)
