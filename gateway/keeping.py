"""Keeps a session in the store that replicas share, ahead of what it says and does.

The session goes on in memory; what its events ask for is held back, in order, until the store has
the state that they led to. Parts of a reply are the exception: they are told at once and written
in batches, so that the store is never in the way of a stream.
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
"""How long the parts of a reply wait for others to be written with."""

FAILED_SECONDS = 1.0
"""How soon it is tried again where nobody knows what was wrong."""

SPARE_SECONDS = 900.0
"""How much longer than its clients and its model need it a session is kept that nobody runs."""

_WRITTEN_FIRST = frozenset({do.Attach, do.Invoke, do.Await, do.CloseSession})
_WRITTEN_BEHIND = frozenset({MessageDelta})  # of the events; the others are promises

log = structlog.stdlib.get_logger("gateway.store")


class Kept(Protocol):
    """What a keeper needs of whoever runs the session."""

    @property
    def session(self) -> Session: ...
    @property
    def log(self) -> Log: ...
    def add(self, effect: do.Append, now: float) -> None:
        """Add events to the log, which nobody reads yet."""
        ...

    def perform(self, effects: Sequence[do.Effect], told: int) -> None:
        """Do these, with the log to be read up to that number."""
        ...

    def fenced(self) -> None:
        """Another replica has the session."""
        ...

    def close(self, model_ids: frozenset[str]) -> None:
        """Close these at the model, of which nobody else knows."""
        ...


class _Unit(Struct, gc=False):
    """What one event has led to.

    Attributes:
        effects: What is to be done, but for what has been done at once.
        told: Up to where the log may be read then.
        first: Whether the session is to be written before.
    """

    effects: Sequence[do.Effect]
    told: int
    first: bool


class Keeper:
    """Writes one session.

    Args:
        runner: Runs it.
        store: Where to.
        health: Of the store.
        spawn: Runs what writes.
        title: As whom.
        number: How often it has been written; 0 for a session that is new.
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
        # Nobody can come back to a raw connection's session. Of it the model's session is kept
        # alone, to be closed if this process dies.
        self._gates = policy.resume_seconds > 0
        self._model: ModelSession | None = session.model
        self._told = self._telling = session.at_model  # what the store knows of, and is told of
        self._units: deque[_Unit] = deque()
        self._covered = 0  # how many of them the write under way has the state for
        self._loop = asyncio.get_running_loop()
        self._behind: asyncio.TimerHandle | None = None
        self._under_way: int | None = None
        self._forgotten = False
        self._due = self._has_more = self._moving = self._releasing = self._over = False
        self._stale_at = 0.0  # when the store is to be told again, so that it keeps what it has
        self._moved: Callable[[], None] | None = None
        runner.log.holding = self._gates

    def take(self, effects: Sequence[do.Effect], now: float) -> None:
        """Do what follows from an event, as soon as that may be done."""
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
        """Do what nobody sees; returns the rest, and whether it is to be written first."""
        runner, kept, first = self._runner, list[do.Effect](), False
        for effect in effects:
            if type(effect) is do.Append:
                runner.add(effect, now)
                first = first or type(effect.events[-1]) not in _WRITTEN_BEHIND
            elif type(effect) is do.Renumber:
                self._renumber(effect)
                continue
            elif type(effect) is do.SetTimer:  # else one fires that is not set any more
                runner.perform([effect], 0)
                continue
            elif type(effect) is do.CloseClient and effect.client is None:
                # But not whoever comes until it may be done.
                there = self._session.clients.readers
                kept += [structs.replace(effect, client=client) for client in there]
                continue
            else:
                first = first or type(effect) in _WRITTEN_FIRST
            kept.append(effect)
        return kept, first

    def touch(self, *, whole: bool = False) -> None:
        """See to it that the store has what was written before.

        Args:
            whole: Write all of it, which also says again whose it is.
        """
        if (self._number or self._due) and not self._over:
            if whole:
                self._recorder.reset()
            self._write_now()

    def rest(self) -> None:
        """What is in the store will do, until there is more: of a session that has been set up from
        there, as another would set it up too.
        """
        if self._behind is not None and not self._units:
            self._behind.cancel()
            self._behind = None

    def move(self, moved: Callable[[], None]) -> None:
        """Write what there is, and be the owner no more.

        Args:
            moved: Called when another replica can have the session.
        """
        self._moved = moved
        self._write_now()

    def forget(self) -> None:
        """The session is over."""
        if not self._over:
            self.stop()
            self._forgotten = self._number > 0
            self._forget()

    def _forget(self) -> None:
        if self._forgotten and self._under_way is None:
            self._forgotten = False
            self._spawn(self._delete())

    def stop(self) -> None:
        """Write nothing more."""
        self._over = True
        if self._behind is not None:
            self._behind.cancel()

    def _renumber(self, effect: do.Renumber) -> None:
        self._runner.log.renumber(effect.after, effect.by)
        self._runner.log.told = effect.after + effect.by
        for unit in self._units:
            unit.told += effect.by
            unit.first = True
        self._covered = 0  # what is being written has other numbers
        self._recorder.reset()

    def _write_soon(self) -> None:
        """Write with what else comes in a while, or comes while a write is under way."""
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
        """Write what is new, unless a write is under way: there is one at a time. What follows from
        one comes before the next, which would be taken for the one that it waits for.
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
        """How long a reply that comes later may take: nothing is written meanwhile."""
        turn = self._session.turns.running
        return 0.0 if turn is None or turn.receipt is None else max(0.0, turn.receipt.until - wall)

    def _written(self, saved: Pending) -> None:
        assert self._under_way is not None  # noqa: S101 - it has been until now
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
                return  # when it answers again, `touch` is called
            case _:
                log.error("the store failed", session=self._session.id, exc_info=failure)
                self._again()
                self._loop.call_later(FAILED_SECONDS, self._write)
                return
        self._write()
        if self._has_more:
            self._write_soon()

    def _again(self) -> None:
        """It is not certain what the store has."""
        self._recorder.reset()
        self._due = True

    def _release(self) -> None:
        """Do what the store has the state for, and what has waited behind it for nothing else."""
        units = self._units
        self._releasing = True
        while units and (self._covered > 0 or not units[0].first) and not self._over:
            unit = units.popleft()
            self._covered -= 1
            self._runner.perform(unit.effects, unit.told)
        self._releasing = False

    async def _close_unknown(self) -> None:
        """Close what is open at the model and the other replica has not heard of. Where that can't
        be found out, it is left to expire.
        """
        unknown = self._session.at_model - self._told
        if not unknown:
            return
        with contextlib.suppress(StoreUnavailable, Unreadable):
            with self._health.call():
                glimpse = await self._store.glimpse(self._session.id)
            if glimpse is not None:  # a write that was not answered may have arrived
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
