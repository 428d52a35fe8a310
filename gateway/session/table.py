"""The session's states, and its table: in which state which event does what, and what follows.

A pair that is not in the table can't happen; `gateway.session.session` raises for it.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType

from msgspec import Struct

from gateway.protocol import messages as wire
from gateway.session import events as on


class State(Enum):
    """Where a session stands."""

    OPENING = "opening"
    """The model is being asked for a session; messages wait."""
    READY = "ready"
    """No turn is at the model."""
    RUNNING = "running"
    """One turn is at the model; others may wait."""
    CLOSING = "closing"
    """Something has ended the session; what is at the model is being brought to an end."""
    CLOSED = "closed"
    """Over."""


class Transition(Struct, frozen=True):
    """What an event does in a state.

    Attributes:
        action: The method of ``Session``, without its leading underscore; its docstring says what
            it does.
        to: The states that may follow.
    """

    action: str
    to: frozenset[State]


def _table() -> Mapping[tuple[State, type], Transition]:
    opening, ready, running, closing, closed = State
    live = (opening, ready, running)
    over = (closing, closed)
    same: tuple[State, ...] = ()
    rows: Iterable[tuple[tuple[State, ...], type, str, tuple[State, ...]]] = (
        # while, event, action, then (`same`: only the state that it was in)
        ((opening,), on.Start, "start", (opening, ready)),
        ((opening,), on.Opened, "opened", (ready, running, closing)),
        ((closing,), on.Opened, "opened_closing", same),
        ((closed,), on.Opened, "opened_late", same),
        ((opening,), on.OpenFailed, "open_failed", (ready, closed)),
        ((closing,), on.OpenFailed, "open_failed_closing", (closed,)),
        ((closed,), on.OpenFailed, "ignore", same),
        ((opening, running), wire.MessageSend, "send", same),
        ((ready,), wire.MessageSend, "send", (opening, ready, running, closing)),
        ((closing,), wire.MessageSend, "send_late", same),
        ((closed,), wire.MessageSend, "ignore", same),
        ((*live, closing), wire.MessageCancel, "cancel", same),
        ((closed,), wire.MessageCancel, "ignore", same),
        ((*live, closing), wire.EventAck, "acknowledge", same),
        ((closed,), wire.EventAck, "ignore", same),
        ((running,), on.ReplyEnded, "replied", (ready, running, closing, closed)),
        ((closing,), on.ReplyEnded, "replied_closing", over),
        ((closed,), on.ReplyEnded, "replied_late", same),
        ((running,), on.InvokeFailed, "failed", (ready, running, closing, closed)),
        ((closing,), on.InvokeFailed, "failed_closing", over),
        ((closed,), on.InvokeFailed, "ignore", same),
        ((running,), on.InvokeCancelled, "cancelled", (ready, running, closing, closed)),
        ((closing,), on.InvokeCancelled, "cancelled_closing", over),
        ((closed,), on.InvokeCancelled, "ignore", same),
        ((opening, running), wire.SessionClose, "close", (closing,)),
        ((ready,), wire.SessionClose, "close", over),
        (over, wire.SessionClose, "ignore", same),
        ((opening, running), on.Evicted, "evicted", (closing,)),
        ((ready,), on.Evicted, "evicted", over),
        (over, on.Evicted, "ignore", same),
        ((opening, running), on.Drain, "drain", (closing,)),
        ((ready,), on.Drain, "drain", over),
        ((closing,), on.Drain, "drain_closing", same),
        ((closed,), on.Drain, "ignore", same),
        ((opening, running), on.Detached, "detached", same),
        ((ready,), on.Detached, "detached", (ready, *over)),
        (over, on.Detached, "ignore", same),
        ((opening,), on.TimerFired, "timer", same),
        ((ready,), on.TimerFired, "timer", (ready, *over)),
        ((running,), on.TimerFired, "timer", (running, closing)),
        ((closing,), on.TimerFired, "timer_closing", (closed,)),
        ((closing,), on.CloseEnded, "close_ended", (closed,)),
        ((closed,), on.CloseEnded, "ignore", same),
    )
    return MappingProxyType(
        {
            (state, event): Transition(action, frozenset(then or (state,)))
            for states, event, action, then in rows
            for state in states
        }
    )


TABLE: Mapping[tuple[State, type], Transition] = _table()
"""Every pair of state and event that can happen."""
