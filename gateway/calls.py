"""What one session has under way at its model; what becomes of it comes back as events."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import structlog

from gateway.errors import Failure, Outcome, internal
from gateway.route import Route
from gateway.session import effects as do
from gateway.session import events as on
from gateway.session.events import SessionEvent
from gateway.session.ports import Call, ModelError, ModelReply, Receipt
from gateway.session.session import Session
from gateway.turnstile import Turnstile

LARGE_BYTES = 262_144
"""A larger reply takes its turn with others: to read it and to write it takes milliseconds."""

Handle = Callable[[SessionEvent], None]
"""Takes in what has become of a call."""

log = structlog.stdlib.get_logger("gateway.sessions")


class Tasks(Protocol):
    """Where work is done that takes long."""

    @property
    def large(self) -> Turnstile:
        """Lets large replies be worked on, one in each turn of the event loop."""
        ...

    def spawn(self, work: Coroutine[Any, Any, object]) -> object:
        """Run work that ends with the gateway."""
        ...


class Calls:
    """The calls of one session.

    Args:
        session: Whose.
        route: Its route.
        tasks: Where work is done.

    What takes in how a call has ended is known to that call alone: whoever runs the session has
    this, and the two would keep each other in memory.
    """

    def __init__(self, session: Session, route: Route, tasks: Tasks) -> None:
        self._session = session
        self._route = route
        self._tasks = tasks
        self._calls: dict[int, Call] = {}

    def invoke(self, effect: do.Invoke, handle: Handle) -> None:
        """Send a turn."""
        turn = effect.turn
        try:
            self._calls[turn] = self._route.model.invoke(
                effect.request,
                effect.model,
                affinity=self._session.id,
                principal=self._session.principal,
                until=effect.until,
                on_parts=partial(_take_parts, turn, handle),
                on_end=partial(self._ended, turn, handle),
            )
        except Exception:
            log.exception("an adapter failed", session=self._session.id)
            handle(on.InvokeFailed(turn, internal(Outcome.UNKNOWN)))

    def wait(self, effect: do.Await, handle: Handle) -> None:
        """Wait for the reply to a turn that was submitted."""
        turn = effect.turn
        try:
            self._calls[turn] = self._route.model.wait(
                effect.receipt,
                affinity=self._session.id,
                on_end=partial(self._ended, turn, handle),
            )
        except Exception:
            log.exception("an adapter failed", session=self._session.id)
            self._calls.pop(turn, None)
            handle(on.InvokeFailed(turn, internal(Outcome.UNKNOWN)))

    def cancel(self, turn: int, handle: Handle) -> None:
        """Close a turn's request, or wait for its reply no longer."""
        call = self._calls.pop(turn, None)
        if call is not None:
            sent = call.cancel() is not Outcome.NOT_INVOKED
            handle(on.InvokeCancelled(turn, None if sent else Outcome.NOT_INVOKED))

    def stop(self) -> None:
        """Close all requests, and wait for no reply; nobody is told."""
        for call in self._calls.values():
            call.cancel()

    def _ended(self, turn: int, handle: Handle, result: ModelReply | Failure | Receipt) -> None:
        if isinstance(result, Receipt):
            self._calls[turn] = _SUBMITTED
            handle(on.Submitted(turn, result))
        elif isinstance(result, Failure):
            del self._calls[turn]
            self._route.log_failure("turn", self._session.id, result)
            handle(on.InvokeFailed(turn, result))
        elif result.body is not None and len(result.body) > LARGE_BYTES:
            self._tasks.large.enter(partial(self._replied, turn, handle, result))
        else:
            self._replied(turn, handle, result)

    def _replied(self, turn: int, handle: Handle, reply: ModelReply) -> None:
        if self._calls.pop(turn, None) is not None:  # else it was cancelled meanwhile
            handle(on.ReplyEnded(turn, reply))

    def open(self, handle: Handle) -> None:
        """Open a session at the model."""
        self._tasks.spawn(self._open(handle))

    async def _open(self, handle: Handle) -> None:
        event: SessionEvent
        try:
            event = on.Opened(await self._route.model.open(self._session.principal))
        except ModelError as error:
            self._route.log_failure("open", self._session.id, error.failure)
            event = on.OpenFailed(error.failure)
        except Exception:
            log.exception("an adapter failed", session=self._session.id)
            event = on.OpenFailed(internal(Outcome.NOT_INVOKED))
        handle(event)

    def close(self, effect: do.CloseSession, handle: Handle) -> None:
        """Close a session at the model."""
        self._tasks.spawn(self._close(effect, handle))

    async def _close(self, effect: do.CloseSession, handle: Handle) -> None:
        try:
            await self._route.model.close(effect.model)
        except ModelError as error:
            self._route.log_failure("close", self._session.id, error.failure)
        except Exception:
            log.exception("an adapter failed", session=self._session.id)
        handle(on.CloseEnded(effect.model))


class _Submitted:
    """A turn whose call has ended, and whose reply is not waited for yet."""

    def cancel(self) -> None:
        """See `Call.cancel`."""


_SUBMITTED = _Submitted()


def _take_parts(turn: int, handle: Handle, parts: list[str | bytes]) -> None:
    handle(on.ReplyParts(turn, parts))
