"""Runs a session: feeds events to its state machine, and performs the resulting effects.

All I/O of a session is started here, and its result comes back here as an event. The state machine
is only called from the event loop's thread and never waits, so its events are ordered without a
lock.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from time import time as wall
from typing import Protocol

import structlog

from gateway.budget import COUNTED_BYTES, ByteBudget
from gateway.calls import Calls, Tasks
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode, Failure
from gateway.health import Health
from gateway.keeping import Keeper
from gateway.protocol.messages import (
    ErrorMessage,
    EventAck,
    MessageAccepted,
    MessageDone,
    MessageSend,
    Notice,
    SessionResumed,
)
from gateway.route import Route
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import ClientId, SessionEvent, Timer
from gateway.session.output import error_message
from gateway.session.ports import Log, ModelSession
from gateway.session.reader import LogReader
from gateway.session.session import Session
from gateway.session.storage import SessionStore, Title
from gateway.subscribers import Subscriber, Subscribers
from gateway.tally import COUNTED, Tally

NO_ROOM = Failure(
    code=ErrorCode.QUEUE_FULL,
    message="The gateway's buffers are full, and much of it is yours; send it again later.",
)
"""The error for a message that would exceed the session's equal share of memory."""

NO_STORE = Failure(
    code=ErrorCode.UNAVAILABLE,
    message="The gateway can't store messages at the moment; send it again later.",
    retry_after=WAIT_SECONDS,
)
"""The error for a message while the store is unavailable."""

log = structlog.stdlib.get_logger("gateway.sessions")
_log = logging.getLogger("gateway.sessions")  # caches whether a level is enabled


class Host(Tasks, Protocol):
    """What a session's runner needs from the owner of all sessions."""

    @property
    def budget(self) -> ByteBudget: ...
    @property
    def turn_level(self) -> int:
        """The level at which turns are logged."""
        ...

    def ended(self, runner: "SessionRunner") -> bool:
        """Remove a session that has ended; return False if it was already removed."""
        ...


class Shared(Protocol):
    """What a session's runner needs from the shared store."""

    @property
    def store(self) -> SessionStore: ...
    @property
    def health(self) -> Health: ...


class SessionRunner:
    """Runs one session until it is closed and none of its calls are in progress.

    Args:
        session: A new or restored session.
        events: Its log.
        route: Its route.
        host: The owner of all sessions.
    """

    def __init__(
        self,
        session: Session,
        events: Log,
        route: Route,
        host: Host,
    ) -> None:
        self.session = session
        self.log = events
        self.route = route
        self.held = 0
        self._queue = session.turns.queue
        self._transcript = session.history.transcript
        self._host = host
        self._logs_turns = _log.isEnabledFor(host.turn_level)
        first = max(session.clients.readers, default=0) + 1
        self._subscribers = Subscribers(events, first)
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._calls = Calls(session, route, host)
        self._loop = asyncio.get_running_loop()
        self._handling = False
        self._later: list[tuple[SessionEvent, ClientId | None]] = []
        self._tally = Tally(session.id, route.measures, route.tracer)
        self._at = 0.0  # when the current event arrived, by the clock of `Tally`
        self._keeper: Keeper | None = None
        self._health: Health | None = None
        self._crashed = False
        self._over = False
        self._gone = False
        self.attached_at = float("-inf")
        """When a client has last resumed, by the loop's clock."""
        self._wanted = 0  # how many wait for it to leave
        self._when_moved: list[Callable[[], None]] = []

    @property
    def id(self) -> str:
        """The gateway's id of the session."""
        return self.session.id

    def begin_again(
        self, timers: Sequence[do.SetTimer], event: on.Adopted, keep: Mapping[ClientId, Subscriber]
    ) -> None:
        """Continue a session that another process has run.

        Args:
            timers: Its timers.
            event: The event that tells it.
            keep: Its clients that are already connected here.
        """
        for client, subscriber in keep.items():
            self._subscribers.put(client, subscriber)
        for timer in timers:
            self._set_timer(timer)
        self.handle(event)
        if self._keeper is not None:
            self._keeper.rest()

    def accepted_at(self, message_id: str) -> float | None:
        """Return when a pending turn was accepted, by `time.monotonic`; None if another process has
        accepted it.
        """
        return self._tally.accepted_at(message_id)

    def touch(self, *, whole: bool = False) -> None:
        """See `Keeper.touch`."""
        if self._keeper is not None:
            self._keeper.touch(whole=whole)

    def abandon(self) -> None:
        """Stop immediately, and leave the session to other replicas as after a crash."""
        if self._keeper is not None:
            self._keeper.stop()
        self._drop()

    def keep(self, shared: Shared, title: Title, number: int = 0) -> None:
        """Store the session from now on; see `Keeper`."""
        self._health = shared.health
        self._keeper = Keeper(
            self, shared.store, shared.health, spawn=self._host.spawn, title=title, number=number
        )

    # Clients

    def start(
        self, key: bytes, subscriber: Subscriber | None = None, told: tuple[on.Words, ...] = ()
    ) -> ClientId | None:
        """Open the session; return the client's number, if it has a connection.

        Args:
            key: The digest of the resume key.
            subscriber: The client's connection, if any.
            told: An imported conversation; see `on.Start`.
        """
        client = None if subscriber is None else self._subscribers.add(subscriber)
        self.handle(on.Start(key, client, told))
        return client

    def attach(self, subscriber: Subscriber, shown: bytes, new: bytes, last_event: int) -> ClientId:
        """Let a client resume the session, and take it over; return its number.

        Args:
            subscriber: Its connection.
            shown: The digest of the resume key that was presented, which the session accepts.
            new: The digest of its next resume key.
            last_event: The newest event that it has; at most the log's newest.
        """
        client = self._subscribers.add(subscriber)
        self.attached_at = self._loop.time()
        self.handle(on.Attached(client, shown, new, last_event))
        return client

    def subscribe(self, subscriber: Subscriber, last_event: int | None) -> ClientId:
        """Let a client subscribe, without taking the session over; return its number.

        Args:
            subscriber: Its connection. It has presented a key that the session accepts.
            last_event: The newest event that it has; at most the log's newest. None to read future
                events only.
        """
        client = self._subscribers.add(subscriber)
        self.handle(on.Subscribed(client, last_event))
        return client

    def let_in(
        self, subscriber: Subscriber, shown: bytes, new: bytes | None, last_event: int | None
    ) -> ClientId:
        """Let a client resume or subscribe; see `Resuming` for the arguments."""
        if new is None or last_event is None:
            return self.subscribe(subscriber, last_event)
        return self.attach(subscriber, shown, new, last_event)

    def detach(self, client: ClientId) -> None:
        """Remove a client that has disconnected; does nothing if the session has closed it."""
        if self._subscribers.has_left(client):
            self._count()
        elif self._subscribers.remove(client) is not None:
            self.handle(on.Detached(client))

    def _detached(self, clients: list[ClientId]) -> None:
        for client in clients:
            self.handle(on.Detached(client))

    def read_by(self, reader: LogReader) -> None:
        """Note that a client has received all events that its reader has taken.

        A session that its client has closed is dropped once the owner has all events; a subscriber
        doesn't count.
        """
        has_all = reader.owns and reader.position == self.log.last
        if has_all and self.session.is_closed_by_client:
            self.handle(EventAck(event=reader.position))

    # Events in, effects out

    def receive(self, message: MessageSend, client: ClientId, size: int) -> None:
        """Handle a client's message, unless there is no room for it.

        Args:
            message: The message.
            client: Its sender, which alone receives its errors.
            size: Its approximate size in bytes.
        """
        budget = self._host.budget
        refusal = None
        if budget.total + size > budget.limit and not budget.admits(self, size):
            refusal = NO_ROOM
        elif self._health is not None and self._health.is_doubtful:
            refusal = NO_STORE
        # A message that was accepted before takes no room: its client asks for its status.
        if refusal is not None and not self.session.knows(message.id):
            self._tell(client, error_message(refusal, message.id))
        else:
            self.handle(message, client)

    def handle(self, event: SessionEvent, client: ClientId | None = None) -> None:
        """Handle an event, and perform its effects.

        Args:
            event: The event.
            client: The sender, if it is a client's message; receives its errors.
        """
        if self._handling:
            self._later.append((event, client))  # after the effects of the previous event
            return
        self._handling = True
        try:
            self._handle(event, client)
            while self._later:
                self._handle(*self._later.pop(0))
        finally:
            self._handling = False

    def _count(self, grain: int = 0) -> None:
        """Report the memory in use to the budget.

        Args:
            grain: The smallest change in bytes that is reported.
        """
        held = self.log.held + self._queue.bytes + self._transcript.bytes
        if self._over and not self._subscribers.are_leaving:
            held = 0
        if abs(held - self.held) >= grain:
            self._host.budget.change(self, held)

    def give_back(self) -> None:
        """Drop the older half of the log. Clients that resume are told which events are lost;
        readers that far behind are too slow, and closed.
        """
        self._subscribers.flush()
        self.log.shrink(self.log.held // 2)
        self._detached(self._subscribers.drop_laggards())
        self._count()

    def _handle(self, event: SessionEvent, client: ClientId | None) -> None:
        if self._crashed or self._gone:
            self._handle_late(event)
            return
        try:
            now = self._loop.time()
            self._at = monotonic()
            effects = self.session.handle(event, now, wall(), client)
            if self._keeper is not None:
                self._keeper.take(effects, now)
                if self._wanted and self.session.can_move:
                    self._move(self._keeper)
                return
            for effect in effects:
                if type(effect) is do.Append:  # by far the most
                    self.add(effect, now)
                    self._show(effect)
                else:
                    self._perform(effect)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._crash(error)

    # The store

    def add(self, effect: do.Append, now: float) -> None:
        """See `Kept.add`."""
        events = effect.events
        for event in events:
            self.log.append(event, now)
        self._tally.said(events, now, self._at)

    def perform(self, effects: Sequence[do.Effect], told: int) -> None:
        """See `Kept.perform`."""
        try:
            self.log.told = max(told, self.log.told)
            for effect in effects:
                if isinstance(effect, do.Append):
                    self._show(effect)
                else:
                    self._perform(effect)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._crash(error)

    def fenced(self) -> None:
        """See `Kept.fenced`."""
        log.warning("another replica has taken over a session", session=self.session.id)
        self._drop()

    def close(self, model_ids: frozenset[str]) -> None:
        """See `Kept.close`."""
        for model_id in model_ids:
            self._calls.close(do.CloseSession(ModelSession(model_id)), self.handle)

    @property
    def is_gone(self) -> bool:
        """Whether it no longer accepts events: another replica owns the session, or may own it."""
        return self._gone

    def leave(self) -> None:
        """Release the session to another replica, as soon as no turn is at the model."""
        self._wanted += 1
        self.handle(on.Hold(on=True))

    @property
    def may_move(self) -> bool:
        """Whether it is stored, and a client can resume it."""
        return self._keeper is not None and self.session.policy.resume_seconds > 0

    def displace(self) -> None:
        """Close the connection of the session's owner, which has resumed elsewhere."""
        owner = self.session.clients.owner
        if owner is not None:
            self._subscribers.abort(owner, CloseCode.TAKEN_OVER, "taken over")

    def when_moved(self, call: Callable[[], None]) -> None:
        """Call this once another replica can claim the session."""
        self._when_moved.append(call)

    def stay(self) -> None:
        """Undo one `leave`: continue here, unless the session has left or others wait for it."""
        self._wanted -= 1
        if not self._wanted:
            self.handle(on.Hold(on=False))

    def _move(self, keeper: Keeper) -> None:
        """Release the session. Later messages are dropped; clients send them again elsewhere."""
        self._gone = True
        self.stop()
        self._calls.stop()  # only waits for asynchronous replies; no other calls are in progress
        keeper.move(self._moved)

    def _moved(self) -> None:
        for call in self._when_moved:
            call()
        self._subscribers.close(None, CloseCode.RESTARTING, "moved")
        self._end()

    def _drop(self) -> None:
        """Drop the session, which another replica owns, or nobody."""
        self._gone = True
        self.stop()
        self._calls.stop()
        self._subscribers.abort(None, CloseCode.RESTARTING, "moved")
        self._end()

    def _handle_late(self, event: SessionEvent) -> None:
        """Handle an event after the session's end here: close a model session that it has opened,
        which nothing else knows.
        """
        if isinstance(event, on.Opened):
            self._calls.close(do.CloseSession(event.model), self.handle)

    def _crash(self, error: Exception) -> None:
        """End a session whose state is inconsistent; others continue."""
        session = self.session
        log.error("a session failed", session=session.id, state=str(session), exc_info=error)
        if not self._crashed:
            running = self._queue.running
            turns = [*self._queue.waiting, *(() if running is None else (running,))]
            self._tally.crashed(turn.id for turn in turns)
        self._crashed = True
        self._subscribers.abort(None, CloseCode.INTERNAL, ErrorCode.INTERNAL)
        self.stop()
        self._calls.stop()
        self._forget()
        if self._end():
            model = session.model
            if model is not None:
                self._calls.close(do.CloseSession(model), self.handle)

    def stop(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _end(self) -> bool:
        """Remove it from the host, and free its memory; return False if that was already done."""
        self._over = True
        self._tally.leave()
        self._keeper = None  # breaks a reference cycle
        self._count()
        return self._host.ended(self)

    def _perform(self, effect: do.Effect) -> None:  # noqa: C901, PLR0912 - a case for each
        match effect:
            case do.Invoke():
                self._invoke(effect)
            case do.Trim():
                self.log.trim(effect.through)
                self._count(COUNTED_BYTES)
                if len(self._subscribers) > 1:
                    self._detached(self._subscribers.drop_laggards())
            case do.Tell():
                self._tell(effect.client, effect.notice)
            case do.Attach():
                self._attach(effect)
            case do.Displace():
                self._subscribers.abort(effect.client, CloseCode.TAKEN_OVER, "taken over")
            case do.CloseClient():
                self._subscribers.close(effect.client, effect.code, effect.reason)
            case do.CancelInvoke():
                self._calls.cancel(effect.turn, self.handle)
            case do.Await():
                if not self._gone:  # else the new owner awaits it
                    self._calls.wait(effect, self.handle)
            case do.SetTimer():
                self._set_timer(effect)
            case do.OpenSession():
                self._calls.open(self.handle)
            case do.CloseSession():
                self._calls.close(effect, self.handle)
            case do.Forget():
                self._forget()
                self._end()

    def _invoke(self, effect: do.Invoke) -> None:
        turn = self._queue.running
        if turn is not None and turn.number == effect.turn:  # else it is a replay step
            effect = self._tally.sent(turn, effect)
        self._calls.invoke(effect, self.handle)

    def _forget(self) -> None:
        if self._keeper is not None:
            self._keeper.forget()

    def _show(self, effect: do.Append) -> None:
        """Notify readers of new events."""
        newest = effect.events[-1]
        kind = type(newest)
        times = self._tally.told(newest) if kind in COUNTED else None
        laggards = self._subscribers.wake(soon=kind is not MessageAccepted)
        if self._logs_turns and isinstance(newest, MessageDone):
            self.route.log_turn(self._host.turn_level, self.session, newest, times)
        if laggards:
            self._detached(laggards)
        self._count(COUNTED_BYTES)

    def _tell(self, client: ClientId, notice: Notice) -> None:
        if isinstance(notice, ErrorMessage):
            self.route.measures.refused[notice.code.value] += 1
        subscriber = self._subscribers.get(client)
        if subscriber is not None:
            subscriber.tell(notice)

    def _attach(self, effect: do.Attach) -> None:
        subscriber = self._subscribers.get(effect.client)
        if subscriber is None:
            return  # it has disconnected meanwhile
        if not effect.resumes:
            subscriber.reader.begin(self.log, effect.after, owns=effect.opens)
            subscriber.wake(soon=False)
            return
        resumed = SessionResumed(
            session_id=self.session.id,
            resume_key="",  # its reader adds it
            expires_at=effect.expires_at,
            last_event=self.log.told,
            lost=None,
        )
        subscriber.reader.resume(self.log, effect.after, resumed)
        subscriber.flush()  # immediately, so that it makes progress however fast the log grows

    def _set_timer(self, effect: do.SetTimer) -> None:
        handle = self._timers.pop(effect.timer, None)
        if handle is not None:
            handle.cancel()
        if effect.at is not None:
            jitter = random.uniform(0, effect.spread)  # noqa: S311 - no secret
            due = effect.at + jitter
            self._timers[effect.timer] = self._loop.call_at(due, self._fire, effect.timer)

    def _fire(self, timer: Timer) -> None:
        del self._timers[timer]
        self.handle(on.TimerFired(timer))
