"""All sessions of a gateway: opening, finding and ending them."""

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
"""The longest pause between the ends of two sessions when the gateway shuts down."""

NOBODYS = ResumeKeys([digest(secrets.token_urlsafe())])
"""The keys that are compared where there is no session: none that anybody has."""

LAST_SECONDS = 5.0
"""How long work that outlives its session may take when the gateway ends."""


class TooManySessions(Exception):
    """There are as many as there may be."""


class PastNewest(Exception):
    """A client says that it has events which it can't have.

    Attributes:
        newest: The newest that it can have.
    """

    def __init__(self, newest: int) -> None:
        super().__init__(newest)
        self.newest = newest


class ClientGone(Exception):
    """A client has left while its session was looked for; it may have come back by another way."""


class Elsewhere(Shared, Protocol):
    """Where sessions are that are not here: at other replicas."""

    @property
    def name(self) -> str:
        """This replica's own name."""
        ...

    async def resume(self, client: Resuming) -> tuple[Conversation, ClientId] | None:
        """See `Sessions.resume`."""
        ...

    async def look(self, session_id: str, shown: bytes, principal: str) -> Snapshot | None:
        """See `Sessions.look`."""
        ...

    def released(self, session_id: str) -> None:
        """A session has been let go, and waits for another replica."""
        ...


class Sessions:
    """All sessions of this gateway. An asynchronous context: leaving it ends them.

    Args:
        routes: By name; the first is the default one.
        max_sessions: How many there may be at once.
        budget: How much they may hold together.
        quota: How many a principal may have; None where nobody has to say who they are.
        drain_seconds: How long the turns at the model may take to finish when the gateway shuts
            down.
        log_turns: Log a line for each turn that ends at the level INFO; otherwise it is DEBUG.

    Attributes:
        limits_hit: How often a setting was in the way of another session, by its name.
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
        """Keep sessions from now on where other replicas can have them."""
        self._elsewhere = elsewhere

    @property
    def message_bytes(self) -> int:
        """The largest message that any route takes."""
        return max(route.policy.message_bytes for route in self.routes.values())

    @property
    def can_keep(self) -> bool:
        """Whether what is begun now can be kept: the store answers, or there is none."""
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
        # What is left is the last word to the store and to models that are slow to close.
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
        """A session that is to be started.

        Raises:
            TooManySessions: There are as many as there may be, or the gateway is shutting down.
            Refused: Its principal has as many as it may.
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
        """Those of all sessions that are here now."""
        return [*self._runners.values()]

    def has(self, session_id: str) -> bool:
        """Whether a session is here, and stays for now."""
        runner = self._runners.get(session_id)
        return runner is not None and not runner.is_gone

    def runner(self, session_id: str) -> SessionRunner | None:
        """That of a session that is here, and stays for now, for who may have any."""
        return self._runners[session_id] if self.has(session_id) else None

    def knows(self, session_id: str) -> bool:
        """Whether a session is here, be it on its way elsewhere."""
        return session_id in self._runners

    def may_know(self, runner: SessionRunner, last_event: int | None, *, owns: bool) -> bool:
        """Whether a client can have the event of that number.

        Where the session has come from a dead replica, and its client has more than there is, the
        store has lost what was acknowledged. Nobody knows then what the model was sent: the
        session is over.
        """
        if last_event is None or runner.session.may_have_told(last_event):
            return True
        if runner.session.inherited and owns:
            log.error("the store has lost part of a session", session=runner.id)
            runner.handle(on.Forgotten())
        return False

    def touch(self, session_id: str) -> None:
        """Have a session find out whether it is still this replica's, if it is here."""
        runner = self._runners.get(session_id)
        if runner is not None:
            runner.touch()

    def can_run(self, glimpse: Glimpse) -> bool:
        """Whether this gateway knows how to go on with a session: it may be of a newer one."""
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
        """Go on with a session that another replica had.

        Args:
            saved: All of it, under this replica's title.
            crashed: Whether that replica has died.
            keep: The connection that has followed it here, and what the session knows it as.

        Raises:
            Unreadable: It can't be set up.
        """
        assert self._elsewhere is not None  # noqa: S101 - where it has come from
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
        if self.draining and self.has(session.id):  # it has come on its way out
            runner.leave()
        return runner

    def find(
        self, session_id: str, shown: bytes, *, route: Route | None, principal: str
    ) -> SessionRunner | None:
        """The session that a client may take over; None where there is none for it.

        Args:
            session_id: The gateway's own id.
            shown: The digest of the key that the client shows.
            route: Where it has connected; None where a session of any will do.
            principal: Who it is.
        """
        runner = self._runners.get(session_id)
        if runner is None:
            NOBODYS.accepts(shown)  # takes as long as to look at another's
            return None
        session = runner.session
        there = route is None or session.policy is route.policy
        theirs = there and session.principal == principal
        return runner if session.accepts(shown) and theirs else None

    async def resume(self, client: Resuming) -> tuple[Conversation, ClientId] | None:
        """Let a client that has come back take its session over, wherever that is.

        Returns:
            The session, and what it knows the client as; None where there is none for it.

        Raises:
            ClientGone: It has left meanwhile.
            PastNewest: It says that it has events which it can't have.
            Refused: It can't be found out at the moment.
        """
        found = self.attach(client) if self.has(client.session_id) else None
        if found is None and self._elsewhere is not None:
            # Also where it is here and does not know the key: another may have taken it over.
            return await self._elsewhere.resume(client)
        return found

    async def look(self, session_id: str, shown: bytes, principal: str) -> Snapshot | None:
        """A session as it stands, without bodies; None where there is none for who asks.

        Args:
            session_id: The gateway's own id.
            shown: The digest of the key that was shown.
            principal: Who asks.

        Raises:
            Refused: It can't be found out at the moment.
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
        """The same for a session that is here."""
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
        """Run work that ends with the gateway, and does not end it; after that, none."""
        if self._is_over:
            work.close()
            return asyncio.get_running_loop().create_task(_nothing())
        task = self._tasks.create_task(_logged(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def ended(self, runner: SessionRunner) -> bool:
        """Drop a session that has ended; False where that has been done."""
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
        """Take no new session, and end all, letting running turns finish within the drain time.

        Clients come back at once, so sessions end one after the other, not all in one moment.
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
        """Let the drain time be over now."""
        if self._time_left is not None:
            self._time_left.reschedule(0)


async def _nothing() -> None:
    pass


async def _logged(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception:
        log.exception("a background task failed")
