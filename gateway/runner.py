"""Runs sessions: feeds events to their state machines and does what those ask for.

All I/O of a session begins here and ends here as an event. The state machine is called from the
event loop's thread only and never waits, so its events are in one order and need no lock.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import structlog
from msgspec import UNSET

from gateway.errors import CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol.messages import MessageAccepted, MessageDone, Notice, SessionResumed
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import SessionEvent, Timer
from gateway.session.policy import Policy
from gateway.session.ports import (
    Call,
    Evicted,
    Model,
    ModelError,
    ModelReply,
    SessionRecord,
    Store,
    StoreFull,
)
from gateway.session.session import Session

A = TypeVar("A")
T = TypeVar("T")

log = structlog.stdlib.get_logger("gateway.sessions")
_log = logging.getLogger("gateway.sessions")  # which knows its level without being asked for it

SPREAD_SECONDS = 0.01
"""The longest pause between the ends of two sessions when the gateway shuts down."""

LAST_SECONDS = 5.0
"""How long work that outlives its session may take when the gateway ends."""

SWEEP_SECONDS = 1.0
"""How often the store is asked to drop what has expired."""


class Connection(Protocol):
    """What a session asks of the connection that reads its log."""

    position: int
    """The newest event that the connection has taken from the log."""

    resume_key: str
    """What its client has to show when it comes back."""

    def begin(self, resumed: SessionResumed, after: int) -> None:
        """Say that the session goes on, then send what is in the log after this event."""
        ...

    def wake(self, *, soon: bool) -> None:
        """The log has news.

        Args:
            soon: Whether somebody waits for it.
        """
        ...

    def tell(self, notice: Notice) -> None:
        """Send this after the events that are in the log now."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Send what is in the log now, then close."""
        ...

    def abandon(self, code: CloseCode, reason: str) -> None:
        """Close without sending anything more."""
        ...


class Route:
    """A route as sessions use it: its rules, and the way to its model."""

    __slots__ = ("model", "policy")

    def __init__(self, policy: Policy, model: Model) -> None:
        self.policy = policy
        self.model = model


class SessionRunner:
    """Runs one session until it is closed and nothing of it is under way."""

    def __init__(self, session: Session, route: Route, sessions: "Sessions") -> None:
        self.session = session
        self._route = route
        self._sessions = sessions
        self._connection: Connection | None = None
        self._attaching: Connection | None = None
        self._backlog = 0
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._calls: dict[int, Call] = {}
        self._handling = False
        self._later: list[SessionEvent] = []
        self._storing = asyncio.Lock()
        self._crashed = False

    def start(self, connection: Connection) -> None:
        """Open the session for this connection."""
        self._connection = connection
        connection.resume_key = _new_key()
        self.handle(on.Start(resume_key=connection.resume_key))

    def attach(self, connection: Connection, resume_key: str, last_event: int) -> None:
        """Go on over this connection; one that the session had is closed.

        Args:
            connection: Of a client that has come back.
            resume_key: What it has shown, and the session accepts.
            last_event: The newest event that it has; no greater than the log's.
        """
        connection.resume_key = _new_key()
        self._attaching = connection
        self.handle(on.Attached(resume_key, connection.resume_key, last_event))

    def detach(self, connection: Connection) -> None:
        """The connection is gone; one that is not the session's own any more changes nothing."""
        if self._connection is connection:
            self._connection = None
            self.handle(on.Detached())

    def handle(self, event: SessionEvent) -> None:
        """Let an event in, and do what follows from it."""
        if self._handling:
            self._later.append(event)  # what follows from the one before comes first
            return
        self._handling = True
        try:
            self._handle(event)
            while self._later:
                self._handle(self._later.pop(0))
        finally:
            self._handling = False

    def _handle(self, event: SessionEvent) -> None:
        if self._crashed:
            if isinstance(event, on.Opened):  # nobody else knows of it
                self._sessions.spawn(self._close(do.CloseSession(event.model)))
            return
        try:
            for effect in self.session.handle(event, time.time()):
                self._perform(effect)
        except Exception:
            log.exception("a session failed", session=self.session.id, state=str(self.session))
            self._crash()

    def _crash(self) -> None:
        """End a session whose state can't be trusted; the others live on."""
        self._crashed = True
        if self._connection is not None:
            self._connection.abandon(CloseCode.INTERNAL, ErrorCode.INTERNAL)
            self._connection = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for call in self._calls.values():
            call.cancel()
        if self._sessions.ended(self):
            self._sessions.spawn(self._store(self._sessions.store.delete, self.session.id))
            model = self.session.record().model
            if model is not None:
                self._sessions.spawn(self._close(do.CloseSession(model)))

    def _perform(self, effect: do.Effect) -> None:  # noqa: C901, PLR0912 - a case for each effect
        match effect:
            case do.Emit():
                self._emitted(effect)
            case do.Tell():
                if self._connection is not None:
                    self._connection.tell(effect.notice)
            case do.Attach():
                self._attach(effect)
            case do.Invoke():
                self._invoke(effect)
            case do.CancelInvoke():
                call = self._calls.pop(effect.turn, None)
                if call is not None:
                    call.cancel()
                    self.handle(on.InvokeCancelled(effect.turn))
            case do.SetTimer():
                self._set_timer(effect)
            case do.OpenSession():
                self._sessions.spawn(self._open())
            case do.CloseSession():
                self._sessions.spawn(self._close(effect))
            case do.Persist():
                self._sessions.spawn(self._store(self._sessions.store.put, effect.record))
            case do.Forget():
                self._sessions.spawn(self._store(self._sessions.store.delete, self.session.id))
                self._sessions.ended(self)
            case do.CloseSocket():
                if self._connection is not None:
                    self._connection.close(effect.code, effect.reason)
                    self._connection = None

    def _attach(self, effect: do.Attach) -> None:
        if self._connection is not None:
            self._connection.abandon(CloseCode.TAKEN_OVER, "taken over")
        self._connection, self._attaching = self._attaching, None
        if self._connection is not None:
            self._backlog = effect.resumed.last_event
            self._connection.begin(effect.resumed, effect.after)

    def _emitted(self, effect: do.Emit) -> None:
        event = effect.event
        if isinstance(event, MessageDone) and _log.isEnabledFor(self._sessions.turn_level):
            self._log_turn(event)
        connection = self._connection
        if connection is None:
            return
        connection.wake(soon=not isinstance(event, MessageAccepted))
        if self._lags(connection):
            self._connection = None
            connection.abandon(CloseCode.TOO_SLOW, "too slow")
            self.handle(on.Detached())

    def _lags(self, connection: Connection) -> bool:
        """Whether what waits for the connection, but for the newest event, fills half of the log.

        The other half is for what happens before it comes back.
        """
        events, policy = self.session.log, self.session.policy
        if events.last - connection.position <= 1:
            return False
        if max(connection.position, events.forgotten) + 1 < events.first:
            return True  # what it has not been sent is no longer kept
        if connection.position < self._backlog:
            return False  # it has come back, and is still being sent what it missed
        waiting = events.bytes_after(connection.position) - events.bytes_after(events.last - 1)
        return (
            waiting * 2 > policy.log_bytes
            or (events.last - connection.position) * 2 > policy.log_events
        )

    def _set_timer(self, effect: do.SetTimer) -> None:
        handle = self._timers.pop(effect.timer, None)
        if handle is not None:
            handle.cancel()
        if effect.at is not None:
            jitter = random.uniform(0, effect.spread)  # noqa: S311 - no secret
            delay = max(0.0, effect.at - time.time()) + jitter
            loop = asyncio.get_running_loop()
            self._timers[effect.timer] = loop.call_later(delay, self._fire, effect.timer)

    def _fire(self, timer: Timer) -> None:
        del self._timers[timer]
        self.handle(on.TimerFired(timer))

    def _invoke(self, effect: do.Invoke) -> None:
        turn = effect.turn
        try:
            self._calls[turn] = self._route.model.invoke(
                effect.request,
                effect.model,
                affinity=self.session.id,
                on_parts=partial(self._parts, turn),
                on_end=partial(self._ended, turn),
            )
        except Exception:
            log.exception("an adapter failed", session=self.session.id)
            self.handle(on.InvokeFailed(turn, _internal(Outcome.UNKNOWN)))

    def _log_turn(self, done: MessageDone) -> None:
        about = {
            "route": self.session.policy.route,
            "session": self.session.id,
            "id": done.id,
            "status": done.status,
            "deltas": done.deltas,
            "duration_ms": done.duration_ms,
        }
        if done.error is not UNSET:
            about["error"] = done.error.code.value
        log.log(self._sessions.turn_level, "turn", **about)

    def _log_failure(self, call: str, failure: Failure) -> None:
        """One line for each call that fails; what the operator has to mend is an error."""
        theirs = failure.retryable is False or failure.code is ErrorCode.INTERNAL
        about: dict[str, object] = {
            "call": call,
            "route": self.session.policy.route,
            "session": self.session.id,
            "error": failure.code.value,
            "outcome": failure.outcome.value,
            "message": failure.message,
        }
        level = logging.ERROR if theirs else logging.WARNING
        log.log(level, "call failed", **{**about, **failure.facts})

    def _parts(self, turn: int, parts: list[str | bytes]) -> None:
        self.handle(on.ReplyParts(turn, parts))

    def _ended(self, turn: int, result: ModelReply | Failure) -> None:
        del self._calls[turn]
        if isinstance(result, Failure):
            self._log_failure("turn", result)
            self.handle(on.InvokeFailed(turn, result))
        else:
            self.handle(on.ReplyEnded(turn, result))

    async def _open(self) -> None:
        event: SessionEvent
        try:
            event = on.Opened(await self._route.model.open())
        except ModelError as error:
            self._log_failure("open", error.failure)
            event = on.OpenFailed(error.failure)
        except Exception:
            log.exception("an adapter failed", session=self.session.id)
            event = on.OpenFailed(_internal(Outcome.NOT_INVOKED))
        self.handle(event)

    async def _close(self, effect: do.CloseSession) -> None:
        try:
            await self._route.model.close(effect.model)
        except ModelError as error:
            self._log_failure("close", error.failure)
        except Exception:
            log.exception("an adapter failed", session=self.session.id)
        self.handle(on.CloseEnded(effect.model))

    async def _store(self, operation: Callable[[A], Awaitable[None]], argument: A) -> None:
        async with self._storing:  # first come, first served: records arrive in order
            try:
                await operation(argument)
            except Exception:
                log.exception("the store failed", session=self.session.id)


def _new_key() -> str:
    return secrets.token_urlsafe(32)


def _internal(outcome: Outcome) -> Failure:
    text = "The gateway failed; its operator finds the reason in its log."
    return Failure(code=ErrorCode.INTERNAL, message=text, outcome=outcome)


class Sessions:
    """All sessions of this gateway. An asynchronous context: leaving it ends them.

    Args:
        routes: By name; the first is the default one.
        store: Makes the store, given what to call when a record expires.
        drain_seconds: How long the turns at the model may take to finish when the gateway shuts
            down.
        log_turns: Log a line for each turn that ends at the level INFO; otherwise it is DEBUG.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        store: Callable[[Evicted], Store],
        *,
        drain_seconds: float,
        log_turns: bool = False,
    ) -> None:
        self.routes = routes
        self.turn_level = logging.INFO if log_turns else logging.DEBUG
        self.store = store(self._evicted)
        self.draining = False
        self._drain_seconds = drain_seconds
        self._runners: dict[str, SessionRunner] = {}
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()
        self._time_left: asyncio.Timeout | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._sweeping = self.spawn(self._expire())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sweeping.cancel()
        self.draining = True
        for runner in list(self._runners.values()):
            runner.handle(on.Drain(force=True))
        # What is left is the last word to the store and to models that are slow to close.
        if self._running:
            await asyncio.wait(self._running, timeout=LAST_SECONDS)
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(kind, exception, traceback)

    def __len__(self) -> int:
        return len(self._runners)

    async def open(self, route: Route, principal: str, connection: Connection) -> SessionRunner:
        """Start a session.

        Raises:
            StoreFull: There are as many as there may be, or the gateway is shutting down.
        """
        session = Session(
            session_id=secrets.token_hex(16), principal=principal, policy=route.policy
        )
        await self.store.put(session.record())
        if self.draining:
            await self.store.delete(session.id)
            raise StoreFull
        runner = self._runners[session.id] = SessionRunner(session, route, self)
        self._empty.clear()
        runner.start(connection)
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
            return None
        session = runner.session
        theirs = session.policy is route.policy and session.principal == principal
        return runner if session.accepts(resume_key) and theirs else None

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work that ends with the gateway."""
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def ended(self, runner: SessionRunner) -> bool:
        """Drop a session that has ended; False where that has been done."""
        known = self._runners.pop(runner.session.id, None) is not None
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
            log.warning("the drain time is over", sessions=len(self._runners))
            for runner in list(self._runners.values()):
                runner.handle(on.Drain(force=True))
            await self._empty.wait()
        finally:
            self._time_left = None

    def hurry(self) -> None:
        """Let the drain time be over now."""
        if self._time_left is not None:
            self._time_left.reschedule(0)

    def _evicted(self, record: SessionRecord) -> None:
        runner = self._runners.get(record.id)
        if runner is not None:
            runner.handle(on.Evicted())

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.store.expire()
            except Exception:
                log.exception("the store failed")
