"""All sessions of a gateway: opening, finding and ending them."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import structlog

from gateway.admission import Refused
from gateway.budget import ByteBudget
from gateway.errors import ErrorCode
from gateway.route import Route
from gateway.runner import SessionRunner
from gateway.session import events as on
from gateway.session.keys import ResumeKeys
from gateway.session.ports import SessionRecord, Store, StoreFull
from gateway.session.session import Session
from gateway.turnstile import Turnstile

T = TypeVar("T")

log = structlog.stdlib.get_logger("gateway.sessions")

SPREAD_SECONDS = 0.1
"""The longest pause between the ends of two sessions when the gateway shuts down."""

NOBODYS = ResumeKeys.first(secrets.token_urlsafe())
"""The keys that are compared where there is no session: none that anybody has."""

LAST_SECONDS = 5.0
"""How long work that outlives its session may take when the gateway ends."""


class SessionQuota(Protocol):
    """How many sessions each principal may have."""

    async def open_session(self, name: str) -> bool:
        """Count a session of that principal; False where it has as many as it may."""
        ...

    def end_session(self, name: str) -> None:
        """A session is over."""
        ...


class Sessions:
    """All sessions of this gateway. An asynchronous context: leaving it ends them.

    Args:
        routes: By name; the first is the default one.
        store: Where they live.
        budget: How much they may hold together.
        quota: How many a principal may have; None where nobody has to say who they are.
        drain_seconds: How long the turns at the model may take to finish when the gateway shuts
            down.
        log_turns: Log a line for each turn that ends at the level INFO; otherwise it is DEBUG.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        store: Store,
        *,
        budget: ByteBudget,
        quota: SessionQuota | None = None,
        drain_seconds: float,
        log_turns: bool = False,
    ) -> None:
        self.routes = routes
        self.turn_level = logging.INFO if log_turns else logging.DEBUG
        self.store = store
        self.budget = budget
        self._quota = quota
        self.draining = False
        self._drain_seconds = drain_seconds
        self._runners: dict[str, SessionRunner] = {}
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()
        self._time_left: asyncio.Timeout | None = None
        self.large = Turnstile(1)
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.draining = True
        for runner in list(self._runners.values()):
            runner.handle(on.Drain(force=True))
        # What is left is the last word to the store and to models that are slow to close.
        if self._running:
            await asyncio.wait(self._running, timeout=LAST_SECONDS)
        for task in self._running:
            task.cancel()
        for runner in self._runners.values():
            runner.stop()
        await self._tasks.__aexit__(kind, exception, traceback)

    def __len__(self) -> int:
        return len(self._runners)

    async def open(self, route: Route, principal: str) -> SessionRunner:
        """A session that is to be started.

        Raises:
            StoreFull: There are as many as there may be, or the gateway is shutting down.
            Refused: Its principal has as many as it may.
        """
        quota = self._quota
        if quota is None:
            return await self._create(route, principal)
        if not await quota.open_session(principal):
            text = "You have as many sessions as you may."
            raise Refused(ErrorCode.RATE_LIMITED, text, retry_after=1.0)
        try:
            return await self._create(route, principal)
        except BaseException:
            quota.end_session(principal)
            raise

    async def _create(self, route: Route, principal: str) -> SessionRunner:
        policy = route.policy
        session = Session(session_id=secrets.token_hex(16), principal=principal, policy=policy)
        record = SessionRecord(
            id=session.id, route=policy.route, principal=principal, model=None, expires_at=None
        )
        events = await self.store.create(record, policy.log_bounds)
        if self.draining:
            await self.store.delete(session.id)
            raise StoreFull
        runner = self._runners[session.id] = SessionRunner(session, events, route, self)
        self._empty.clear()
        return runner

    def find(
        self, session_id: str, resume_key: str, *, route: Route, principal: str
    ) -> SessionRunner | None:
        """The session that a client may take over; None where there is none for it.

        Args:
            session_id: The gateway's own id.
            resume_key: What the client shows.
            route: Where it has connected.
            principal: Who it is.
        """
        runner = self._runners.get(session_id)
        if runner is None:
            NOBODYS.accepts(resume_key)  # takes as long as to look at another's
            return None
        session = runner.session
        theirs = session.policy is route.policy and session.principal == principal
        return runner if session.accepts(resume_key) and theirs else None

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Run work that ends with the gateway, and does not end it."""
        task = self._tasks.create_task(_logged(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def ended(self, runner: SessionRunner) -> bool:
        """Drop a session that has ended; False where that has been done."""
        known = self._runners.pop(runner.session.id, None) is not None
        if known and self._quota is not None:
            self._quota.end_session(runner.session.principal)
        if not self._runners:
            self._empty.set()
        return known

    async def drain(self) -> None:
        """Take no new session, and end all, letting running turns finish within the drain time.

        Clients come back at once, so sessions end one after the other, not all in one moment.
        """
        self.draining = True
        runners = list(self._runners.values())
        pause = min(SPREAD_SECONDS, self._drain_seconds / 2 / max(1, len(runners)))
        try:
            async with asyncio.timeout(self._drain_seconds) as self._time_left:
                for runner in runners:
                    runner.handle(on.Drain())
                    await asyncio.sleep(pause)
                await self._empty.wait()
        except TimeoutError:
            self._time_left = None
            log.warning("the drain time is over", sessions=len(self._runners))
            for runner in list(self._runners.values()):
                runner.handle(on.Drain(force=True))
            await self._empty.wait()
        finally:
            self._time_left = None

    def stop_draining(self) -> None:
        """Let the drain time be over now."""
        if self._time_left is not None:
            self._time_left.reschedule(0)


async def _logged(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception:
        log.exception("background work failed")
