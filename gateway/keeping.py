"""Persists a session in the shared store, before its effects are visible (write-ahead).

The session itself continues in memory; the effects of its events are held back, in order, until the
resulting state is stored. Parts of a reply are the exception: they are sent immediately and written
in batches, so that the store never delays a stream.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import structlog
from msgspec import Struct, structs

from gateway.health import Health
from gateway.protocol.messages import MessageDelta
from gateway.session import effects as do
from gateway.session.ports import Log, ModelSession
from gateway.session.recorder import Recorder, closing, head_of
from gateway.session.session import Session
from gateway.session.storage import (
    Fenced,
    Outdated,
    Pending,
    SessionStore,
    StoreUnavailable,
    Title,
    Unreadable,
)

BEHIND_SECONDS = 0.1
"""Seconds for which parts of a reply are batched before they are written."""

FAILED_SECONDS = 1.0
"""Seconds before a retry after an unknown error."""

SPARE_SECONDS = 900.0
"""Seconds that a session without an owner is kept beyond what its clients and model need."""

_WRITTEN_FIRST = frozenset({do.Attach, do.Invoke, do.Await, do.CloseSession})
_WRITTEN_BEHIND = frozenset({MessageDelta})  # of the events; all others are promises

log = structlog.stdlib.get_logger("gateway.store")


class Kept(Protocol):
    """What a keeper requires of a session's runner."""

    @property
    def session(self) -> Session: ...
    @property
    def log(self) -> Log: ...
    def add(self, effect: do.Append, now: float) -> None:
        """Append events to the log, without making them readable."""
        ...

    def perform(self, effects: Sequence[do.Effect], told: int) -> None:
        """Perform effects, with the log readable up to that number."""
        ...

    def fenced(self) -> None:
        """Handle that another replica owns the session."""
        ...

    def close(self, model_ids: frozenset[str]) -> None:
        """Close these sessions at the model, since no other replica knows of them."""
        ...


class _Unit(Struct, gc=False):
    """The effects of one event.

    Attributes:
        effects: Effects to perform, without those performed immediately.
        told: Number up to which the log becomes readable.
        first: Whether the session must be stored before.
    """

    effects: Sequence[do.Effect]
    told: int
    first: bool


class Keeper:
    """Writes one session to the store.

    Args:
        runner: The session's runner.
        store: The store.
        health: Availability of the store.
        spawn: Starts background tasks.
        title: This replica's ownership, with its fencing token.
        number: Number of previous writes; 0 for a new session.
    """

    def __init__(
        self,
        runner: Kept,
        store: SessionStore,
        health: Health,
        *,
        spawn: Callable[[Coroutine[Any, Any, object]], object],
        title: Title,
        number: int = 0,
    ) -> None:
        session, policy = runner.session, runner.session.policy
        self._runner = runner
        self._session = session
        self._store = store
        self._health = health
        self._spawn = spawn
        self._title = title
        self._number = number
        self._recorder = Recorder(session, runner.log, stored=number > 0)
        self._seconds = policy.idle_seconds + policy.resume_seconds + SPARE_SECONDS
        # A raw connection's session can't be resumed. Only its session at the model is stored, so
        # that it can be closed if this process dies.
        self._gates = policy.resume_seconds > 0
        self._model: ModelSession | None = session.model
        self._told = self._telling = session.at_model  # stored, and being stored
        self._units: deque[_Unit] = deque()
        self._covered = 0  # how many of them the pending write covers
        self._loop = asyncio.get_running_loop()
        self._behind: asyncio.TimerHandle | None = None
        self._under_way: int | None = None
        self._forgotten = False
        self._due = self._has_more = self._moving = self._releasing = self._over = False
        self._stale_at = 0.0  # when the session must be written again, before it expires
        self._moved: Callable[[], None] | None = None
        runner.log.holding = self._gates

    def take(self, effects: Sequence[do.Effect], now: float) -> None:
        """Perform an event's effects as soon as that is allowed."""
        runner, session = self._runner, self._session
        kept, first = self._begin(effects, now)
        if not self._gates or not session.announced:
            runner.perform(kept, runner.log.last)
            if session.announced and (session.model is not self._model or now > self._stale_at):
                self._model = session.model
                self._write_now()
            return
        if first or self._units or self._releasing:
            self._units.append(_Unit(kept, runner.log.last, first))
        else:
            runner.perform(kept, runner.log.last)
        if first:
            self._write_now()
        else:
            self._write_soon()

    def _begin(self, effects: Sequence[do.Effect], now: float) -> tuple[Sequence[do.Effect], bool]:
        """Perform internal effects; returns the rest, and whether to store the session first."""
        runner, kept, first = self._runner, list[do.Effect](), False
        for effect in effects:
            if type(effect) is do.Append:
                runner.add(effect, now)
                first = first or type(effect.events[-1]) not in _WRITTEN_BEHIND
            elif type(effect) is do.Renumber:
                self._renumber(effect)
                continue
            elif type(effect) is do.SetTimer:  # now, or the previous one could still fire
                runner.perform([effect], 0)
                continue
            elif type(effect) is do.CloseClient and effect.client is None:
                # Name the current clients, to spare those that connect before it is performed.
                there = self._session.clients.readers
                kept += [structs.replace(effect, client=client) for client in there]
                continue
            else:
                first = first or type(effect) in _WRITTEN_FIRST
            kept.append(effect)
        return kept, first

    def touch(self, *, whole: bool = False) -> None:
        """Make sure that the store still has the session.

        Args:
            whole: Write it completely, including its ownership.
        """
        if (self._number or self._due) and not self._over:
            if whole:
                self._recorder.reset()
            self._write_now()

    def rest(self) -> None:
        """Cancel a pending batch: the session was just loaded from the store, and any other replica
        would load it in the same way.
        """
        if self._behind is not None and not self._units:
            self._behind.cancel()
            self._behind = None

    def move(self, moved: Callable[[], None]) -> None:
        """Write the session, and release its ownership.

        Args:
            moved: Called when another replica may claim the session.
        """
        self._moved = moved
        self._write_now()

    def forget(self) -> None:
        """Delete the session, which has ended."""
        if not self._over:
            self.stop()
            self._forgotten = self._number > 0
            self._forget()

    def _forget(self) -> None:
        if self._forgotten and self._under_way is None:
            self._forgotten = False
            self._spawn(self._delete())

    def stop(self) -> None:
        """Stop writing."""
        self._over = True
        if self._behind is not None:
            self._behind.cancel()

    def _renumber(self, effect: do.Renumber) -> None:
        self._runner.log.renumber(effect.after, effect.by)
        self._runner.log.told = effect.after + effect.by
        for unit in self._units:
            unit.told += effect.by
            unit.first = True
        self._covered = 0  # the pending write has the old numbers
        self._recorder.reset()

    def _write_soon(self) -> None:
        """Write together with what follows shortly, or while another write is pending."""
        if self._under_way is not None:
            self._has_more = True
        elif self._behind is None and not self._over:
            self._behind = self._loop.call_later(BEHIND_SECONDS, self._write_now)

    def _write_now(self) -> None:
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None
        self._due = True
        self._write()

    def _write(self) -> None:
        """Write changes, unless a write is pending: there is one at a time. A write's effects are
        released before the next write starts, which would otherwise be taken for the one they wait
        for.
        """
        if not self._due or self._under_way is not None or self._releasing or self._over:
            return
        now, wall = self._loop.time(), time.time()
        change = (
            self._recorder.take(now, wall) if self._gates else closing(self._session, now, wall)
        )
        self._due = self._has_more = False
        self._covered = len(self._units)
        self._number += 1
        self._stale_at = now + self._seconds / 2
        self._moving = self._moved is not None
        self._telling = self._session.at_model
        saved = self._store.save(
            self._session.id,
            self._title,
            self._number,
            change,
            seconds=self._seconds + self._awaited(wall),
            release=self._moving,
        )
        self._under_way = self._health.begin()
        saved.add_done_callback(self._written)

    def _awaited(self, wall: float) -> float:
        """Return how long an asynchronous reply may take, since nothing is written meanwhile."""
        turn = self._session.turns.running
        return 0.0 if turn is None or turn.receipt is None else max(0.0, turn.receipt.until - wall)

    def _written(self, saved: Pending) -> None:
        assert self._under_way is not None  # noqa: S101 - set by `_write`
        self._health.end(self._under_way)
        self._under_way = None
        failure = saved.exception()
        if self._over:
            self._forget()
            return
        match failure:
            case None:
                self._told = self._telling
                self._release()
                if self._moved is not None and self._moving:
                    self.stop()
                    self._moved()
            case Fenced():
                self.stop()
                self._runner.fenced()
                self._spawn(self._close_unknown())
            case Outdated():
                log.warning("the store has lost writes", session=self._session.id)
                self._again()
            case StoreUnavailable() as failure:
                self._health.failed(failure)
                self._again()
                return  # `touch` is called when the store is available again
            case _:
                log.error("the store failed", session=self._session.id, exc_info=failure)
                self._again()
                self._loop.call_later(FAILED_SECONDS, self._write)
                return
        self._write()
        if self._has_more:
            self._write_soon()

    def _again(self) -> None:
        """Write everything again, since it is uncertain what the store has."""
        self._recorder.reset()
        self._due = True

    def _release(self) -> None:
        """Perform the effects that are now covered by the store, and those queued behind them."""
        units = self._units
        self._releasing = True
        while units and (self._covered > 0 or not units[0].first) and not self._over:
            unit = units.popleft()
            self._covered -= 1
            self._runner.perform(unit.effects, unit.told)
        self._releasing = False

    async def _close_unknown(self) -> None:
        """Close sessions at the model that the new owner does not know of. If these can't be
        determined, they are left to expire.
        """
        unknown = self._session.at_model - self._told
        if not unknown:
            return
        with contextlib.suppress(StoreUnavailable, Unreadable):
            with self._health.call():
                glimpse = await self._store.glimpse(self._session.id)
            if glimpse is not None:  # an unacknowledged write may have succeeded
                unknown -= head_of(glimpse.head).at_model
            self._runner.close(unknown)

    async def _delete(self) -> None:
        is_there = True
        while is_there:
            try:
                with self._health.call():
                    await self._store.delete(self._session.id, self._title)
                is_there = False
            except StoreUnavailable:
                await self._health.recovery()
