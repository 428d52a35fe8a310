"""All sessions of a gateway: opens, finds and ends them."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from gateway.admission import Refused, SessionQuota
from gateway.budget import ByteBudget
from gateway.conversation import Conversation, Resuming, Traveller
from gateway.errors import WAIT_SECONDS, ErrorCode
from gateway.route import Route
from gateway.runner import SessionRunner, Shared
from gateway.session import events as on
from gateway.session.events import ClientId
from gateway.session.keys import ResumeKeys, digest
from gateway.session.log import EventLog
from gateway.session.ports import Log
from gateway.session.recorder import head_of, snapshot_of
from gateway.session.session import Session
from gateway.session.snapshot import Snapshot, head, restore
from gateway.session.storage import Glimpse, Saved, Title, Unreadable
from gateway.subscribers import Subscriber
from gateway.turnstile import Turnstile

log = structlog.stdlib.get_logger("gateway.sessions")

SPREAD_SECONDS = 0.1
"""The longest pause between ending two sessions while draining."""

NOBODYS = ResumeKeys([digest(secrets.token_urlsafe())])
"""Keys to compare with if there is no session; no client has one of them."""

LAST_SECONDS = 5.0
"""How long work that outlives its session may take at shutdown."""


class TooManySessions(Exception):
    """The limit of sessions is reached."""


class PastNewest(Exception):
    """A client claims to have events that it can't have.

    Attributes:
        newest: The newest event that it can have.
    """

    def __init__(self, newest: int) -> None:
        super().__init__(newest)
        self.newest = newest


class ClientGone(Exception):
    """A client has disconnected during the search for its session; it may have connected again."""


class Elsewhere(Shared, Protocol):
    """Access to sessions of other replicas."""

    @property
    def name(self) -> str:
        """This replica's name."""
        ...

    async def resume(self, client: Resuming) -> tuple[Conversation, ClientId] | None:
        """See `Sessions.resume`."""
        ...

    async def look(self, session_id: str, shown: bytes, principal: str) -> Snapshot | None:
        """See `Sessions.look`."""
        ...

    def released(self, session_id: str) -> None:
        """Note that a session was released to another replica."""
        ...


class Sessions:
    """All sessions of this gateway. An asynchronous context manager: leaving it ends them.

    Args:
        routes: The routes by name; the first is the default.
        max_sessions: The largest number of sessions.
        budget: The memory for all of them.
        quota: The limits per principal; None without authentication.
        drain_seconds: How long turns at the model may take to finish at shutdown.
        log_turns: Log each turn that ends at INFO instead of DEBUG.

    Attributes:
        limits_hit: How often a limit has prevented another session, by the setting's name.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        max_sessions: int,
        budget: ByteBudget,
        quota: SessionQuota | None = None,
        drain_seconds: float,
        log_turns: bool = False,
    ) -> None:
        self.routes = routes
        self.turn_level = logging.INFO if log_turns else logging.DEBUG
        self._max_sessions = max_sessions
        self._elsewhere: Elsewhere | None = None
        self.budget = budget
        self._quota = quota
        self.limits_hit = Counter(max_sessions=0, sessions_per_principal=0)
        self.draining = self._is_over = False
        self._drain_seconds = drain_seconds
        self._runners: dict[str, SessionRunner] = {}
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()
        self._time_left: asyncio.Timeout | None = None
        self.large = Turnstile(1)
        self._empty = asyncio.Event()
        self._empty.set()

    def share(self, elsewhere: "Elsewhere") -> None:
        """Share sessions with other replicas from now on."""
        self._elsewhere = elsewhere

    @property
    def message_bytes(self) -> int:
        """The largest message that any route accepts."""
        return max(route.policy.message_bytes for route in self.routes.values())

    @property
    def can_keep(self) -> bool:
        """Whether new sessions and turns can be stored: the store is available, or not used."""
        return self._elsewhere is None or self._elsewhere.health.is_up

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
        self._end_all()
        # What remains are the last writes to the store, and models that are slow to close.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                if self._elsewhere is not None:
                    await self._elsewhere.health.settled()
                while self._running:
                    await asyncio.wait(self._running)
        self._is_over = True
        for task in self._running:
            task.cancel()
        for runner in self._runners.values():
            runner.stop()
        await self._tasks.__aexit__(kind, exception, traceback)

    def __len__(self) -> int:
        return len(self._runners)

    async def open(self, route: Route, principal: str) -> SessionRunner:
        """Create a session, to be started.

        Raises:
            TooManySessions: The limit is reached, or the gateway is shutting down.
            Refused: The principal's limit is reached.
        """
        if self._elsewhere is not None and self._elsewhere.health.is_doubtful:
            text = "Sessions can't be stored at the moment."
            raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS)
        quota = self._quota
        if quota is None:
            return await self._create(route, principal)
        if not await quota.open_session(principal):
            self.limits_hit["sessions_per_principal"] += 1
            text = "You have reached your limit of sessions."
            raise Refused(ErrorCode.RATE_LIMITED, text, WAIT_SECONDS)
        try:
            return await self._create(route, principal)
        except BaseException:
            quota.end_session(principal)
            raise

    async def _create(self, route: Route, principal: str) -> SessionRunner:
        if self.draining:
            raise TooManySessions
        if len(self._runners) >= self._max_sessions:
            self.limits_hit["max_sessions"] += 1
            raise TooManySessions
        policy = route.policy
        session = Session(session_id=secrets.token_hex(16), principal=principal, policy=policy)
        runner = self._add(session, EventLog(policy.log_bounds), route)
        if self._elsewhere is not None:
            runner.keep(self._elsewhere, Title(self._elsewhere.name, 1))
        return runner

    def _add(self, session: Session, events: Log, route: Route) -> SessionRunner:
        runner = self._runners[session.id] = SessionRunner(session, events, route, self)
        self._empty.clear()
        return runner

    @property
    def runners(self) -> Sequence[SessionRunner]:
        """The runners of all sessions that are here now."""
        return [*self._runners.values()]

    def has(self, session_id: str) -> bool:
        """Whether a session is here, and not moving to another replica."""
        runner = self._runners.get(session_id)
        return runner is not None and not runner.is_gone

    def runner(self, session_id: str) -> SessionRunner | None:
        """Return the runner of a session for which `has` is true, without checking a key."""
        return self._runners[session_id] if self.has(session_id) else None

    def knows(self, session_id: str) -> bool:
        """Whether a session is here, even if it is moving to another replica."""
        return session_id in self._runners

    def may_know(self, runner: SessionRunner, last_event: int | None, *, owns: bool) -> bool:
        """Whether a client can have the event of that number.

        If the session was taken over from a dead replica, and its owner has newer events than the
        log, the store has lost acknowledged writes. It is then unknown what the model was sent, so
        the session ends.
        """
        if last_event is None or runner.session.may_have_told(last_event):
            return True
        if runner.session.inherited and owns:
            log.error("the store has lost part of a session", session=runner.id)
            runner.handle(on.Forgotten())
        return False

    def touch(self, session_id: str) -> None:
        """Let a session that is here check whether this replica still owns it."""
        runner = self._runners.get(session_id)
        if runner is not None:
            runner.touch()

    def can_run(self, glimpse: Glimpse) -> bool:
        """Whether this version can continue a session, which may come from a newer one."""
        try:
            return head_of(glimpse.head).route in self.routes
        except Unreadable:
            return False

    def adopt(
        self,
        saved: Saved,
        *,
        crashed: bool = False,
        keep: tuple[Traveller, ClientId] | None = None,
    ) -> SessionRunner:
        """Continue a session of another replica.

        Args:
            saved: The whole session, now owned by this replica.
            crashed: Whether the other replica has crashed.
            keep: A follower's connection here, and its client number in the session.

        Raises:
            Unreadable: It can't be restored.
        """
        assert self._elsewhere is not None  # noqa: S101 - the session comes from there
        snapshot, events = snapshot_of(saved)
        route, now = self.routes[snapshot.route], asyncio.get_running_loop().time()
        log = EventLog(route.policy.log_bounds)
        try:
            session, timers = restore(snapshot, route.policy, now, time.time())
            log.begin(snapshot.last - len(events))
            for event in events:
                log.append(event, now)
        except (KeyError, ValueError) as error:
            raise Unreadable(type(error).__name__) from error
        runner = self._add(session, log, route)
        runner.keep(self._elsewhere, saved.title, saved.number)
        if self._quota is not None:
            self._quota.adopt_session(session.principal)
        there = dict[ClientId, Subscriber]()
        if keep is not None:
            subscriber, client = keep
            subscriber.go_on(runner, client)
            there[client] = subscriber
        runner.begin_again(timers, on.Adopted((*there,), crashed), there)
        if self.draining and self.has(session.id):  # it has arrived during the drain
            runner.leave()
        return runner

    def find(
        self, session_id: str, shown: bytes, *, route: Route | None, principal: str
    ) -> SessionRunner | None:
        """Return the session that a client may resume; None if there is none.

        Args:
            session_id: The gateway's id of the session.
            shown: The digest of the resume key that was presented.
            route: The route of its connection; None for any.
            principal: Its principal.
        """
        runner = self._runners.get(session_id)
        if runner is None:
            NOBODYS.accepts(shown)  # takes as long as for an existing session
            return None
        session = runner.session
        there = route is None or session.policy is route.policy
        theirs = there and session.principal == principal
        return runner if session.accepts(shown) and theirs else None

    async def resume(self, client: Resuming) -> tuple[Conversation, ClientId] | None:
        """Let a client resume its session, on any replica.

        Returns:
            The session, and the client's number in it; None if there is no session for it.

        Raises:
            ClientGone: It has disconnected meanwhile.
            PastNewest: It claims to have events that it can't have.
            Refused: The store or the session's owner is unavailable.
        """
        found = self.attach(client) if self.has(client.session_id) else None
        if found is None and self._elsewhere is not None:
            # Also if it is here but rejects the key: another replica may have taken it over.
            return await self._elsewhere.resume(client)
        return found

    async def look(self, session_id: str, shown: bytes, principal: str) -> Snapshot | None:
        """Return a session's state, without bodies; None if there is no session for the client.

        Args:
            session_id: The gateway's id of the session.
            shown: The digest of the resume key that was presented.
            principal: The client's principal.

        Raises:
            Refused: The store is unavailable.
        """
        runner = None
        if self.has(session_id) or self._elsewhere is None:
            runner = self.find(session_id, shown, route=None, principal=principal)
        if runner is not None:
            return head(runner.session, asyncio.get_running_loop().time(), time.time())
        if self._elsewhere is None:
            return None
        return await self._elsewhere.look(session_id, shown, principal)

    def attach(self, client: Resuming) -> tuple[Conversation, ClientId] | None:
        """Let a client resume a session that is here; see `resume`."""
        runner = self.find(
            client.session_id, client.shown, route=client.route, principal=client.principal
        )
        if not client.subscriber.is_open:
            raise ClientGone
        if runner is None:
            return None
        if not self.may_know(runner, client.last_event, owns=client.new is not None):
            if runner.session.is_over:
                return None
            raise PastNewest(runner.log.told)
        number = runner.let_in(client.subscriber, client.shown, client.new, client.last_event)
        return runner, number

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Run background work, which ends with the gateway; its errors are only logged.

        Does nothing after shutdown.
        """
        if self._is_over:
            work.close()
            return asyncio.get_running_loop().create_task(_nothing())
        task = self._tasks.create_task(_logged(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def ended(self, runner: SessionRunner) -> bool:
        """Remove a session that has ended; return False if it was already removed."""
        known = self._runners.get(runner.id) is runner
        if known:
            del self._runners[runner.id]
        if runner.is_gone and self._elsewhere is not None:
            self._elsewhere.released(runner.id)
        if known and self._quota is not None:
            self._quota.end_session(runner.session.principal)
        if not self._runners:
            self._empty.set()
        return known

    async def drain(self) -> None:
        """Accept no new sessions, and end all, letting running turns finish within the drain time.

        Clients reconnect immediately, so the ends of sessions are spread over time.
        """
        self.draining = True
        runners = self.runners
        pause = min(SPREAD_SECONDS, self._drain_seconds / 2 / max(1, len(runners)))
        try:
            async with asyncio.timeout(self._drain_seconds) as self._time_left:
                for runner in runners:
                    if self._elsewhere is not None and runner.may_move:
                        runner.leave()
                    else:
                        runner.handle(on.Drain())
                    await asyncio.sleep(pause)
                await self._empty.wait()
        except TimeoutError:
            self._time_left = None
            log.warning("the drain time is over", sessions=len(self._runners))
            self._end_all()
            await self._empty.wait()
        finally:
            self._time_left = None

    def _end_all(self) -> None:
        for runner in self.runners:
            if self._elsewhere is not None and runner.may_move:
                runner.abandon()
            else:
                runner.handle(on.Drain(force=True))

    def stop_draining(self) -> None:
        """End the drain time now."""
        if self._time_left is not None:
            self._time_left.reschedule(0)


async def _nothing() -> None:
    pass


async def _logged(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception:
        log.exception("a background task failed")
