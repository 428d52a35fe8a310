"""The gateway as an ASGI application, for a server or another application to run."""

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
    """What is built from the settings, from its start to its end, in a task of its own.

    What is entered in a task has to be left there, and the call that needs the gateway first is not
    the one that ends it.

    Args:
        settings: All of them.

    Attributes:
        app: The application, when it has started.
        users: How many lifespans it runs for.
    """

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.app: asyncio.Future[ASGIApp] = self.loop.create_future()
        self.users = 0
        self._end = asyncio.Event()
        # Nothing of the call that is served at this moment belongs to it, not even its context.
        self._task = self.loop.create_task(self._run(settings), context=Context())

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or could not start."""
        return self._task.done() or self.loop.is_closed()

    @property
    def is_ending(self) -> bool:
        """Whether it takes no new sessions any more."""
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
        """Drain, and end; at once where this is cancelled."""
        self._end.set()
        await self._task


class Gateway:
    """An ASGI application that starts and ends with a lifespan.

    That is the server's, where a server runs it as it is. An application that it is mounted in
    passes the server's lifespan on by `lifespan`; otherwise the gateway starts with the first
    request, and ends with the event loop, without draining.

    Args:
        settings: All of them. Where and how a server listens is not theirs to say here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: _Running | None = None
        self._lifespans = Router(lifespan=self.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification.

        Raises:
            ConfigError: The gateway is to start, and can't call the platform with its settings.
        """
        if scope["type"] == "lifespan":
            await self._lifespans(scope, receive, send)
            return
        app = await asyncio.shield(self._start().app)
        await app(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Run for as long as this context lasts, then drain.

        It can be given to Starlette or FastAPI as it is, or be entered in a lifespan of theirs::

            app = FastAPI(lifespan=gateway.lifespan)
            app.mount("/chat", gateway)

        Raises:
            ConfigError: The platform can't be called with the settings.
        """
        if self._running is not None and self._running.is_ending:
            # It answers until it has ended its sessions, and takes no new ones.
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
        """What runs already in this event loop, or else is started now."""
        running = self._running
        if running is None or running.is_over or running.loop is not asyncio.get_running_loop():
            running = self._running = _Running(self._settings)
        return running


def create_app(settings: Settings) -> Gateway:
    """The gateway as an ASGI application, pages and all, for any server and under any path.

    ::

        from gateway import Settings, create_app

        app = create_app(Settings.load("gateway.toml"))

    Its log goes to the loggers below ``gateway`` of `logging`, or, where the application has
    configured structlog, to that.

    Args:
        settings: All of them; ``host``, ``port``, ``workers``, ``log_level`` and ``log_format``
            have no effect.
    """
    log_to_logging()
    return Gateway(settings)
