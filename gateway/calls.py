"""Runs one session's calls to its model, and reports their results as events."""

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
"""Larger replies are processed one at a time, since each takes milliseconds to read and write."""

Handle = Callable[[SessionEvent], None]
"""Handles the result of a call."""

log = structlog.stdlib.get_logger("gateway.sessions")


class Tasks(Protocol):
    """Runs work in the background."""

    @property
    def large(self) -> Turnstile:
        """The turnstile for large replies: one in each iteration of the event loop."""
        ...

    def spawn(self, work: Coroutine[Any, Any, object]) -> object:
        """Start a task that ends with the gateway."""
        ...


class Calls:
    """The calls of one session.

    Each call alone has the callback for its result. The callback refers to the session's runner,
    which refers to this object: stored here, it would be a reference cycle.

    Args:
        session: The session.
        route: Its route.
        tasks: Runs work in the background.
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
        """Cancel a turn's request, or the wait for its reply."""
        call = self._calls.pop(turn, None)
        if call is not None:
            sent = call.cancel() is not Outcome.NOT_INVOKED
            handle(on.InvokeCancelled(turn, None if sent else Outcome.NOT_INVOKED))

    def stop(self) -> None:
        """Cancel all requests and waits, without events."""
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
        if self._calls.pop(turn, None) is not None:  # else it was cancelled in the meantime
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
    """A submitted turn before the wait for its reply begins."""

    def cancel(self) -> None:
        """See `Call.cancel`."""


_SUBMITTED = _Submitted()


def _take_parts(turn: int, handle: Handle, parts: list[str | bytes]) -> None:
    handle(on.ReplyParts(turn, parts))
