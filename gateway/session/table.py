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

    __hash__ = object.__hash__  # each is what it is; an Enum's own is much dearer

    OPENING = "opening"
    """The model is being asked for a session; messages wait."""
    READY = "ready"
    """No turn is at the model."""
    RUNNING = "running"
    """One turn is at the model; others may wait."""
    RETRYING = "retrying"
    """The model has turned a turn away without seeing it; it is sent again in a while."""
    RENEWING = "renewing"
    """Another session at the model is to take the place of one that is gone; messages wait."""
    CLOSING = "closing"
    """Something has ended the session; what is at the model is being brought to an end."""
    ENDED = "ended"
    """Over at the model; a client that comes back can still have the last events."""
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
    opening, ready, running, retrying, renewing, closing, ended, closed = State
    live = (opening, ready, running, retrying, renewing)
    over = (closing, ended, closed)
    gone = (ended, closed)
    same: tuple[State, ...] = ()
    rows: Iterable[tuple[tuple[State, ...], type, str, tuple[State, ...]]] = (
        # while, event, action, then (`same`: only the state that it was in)
        ((opening,), on.Start, "start", (opening, ready)),
        ((*live, closing, ended), on.Attached, "attach", same),
        ((*live, closing, ended), on.Confirmed, "confirm", same),
        ((closed,), on.Confirmed, "ignore", same),
        ((opening,), on.Opened, "opened", (ready, running, closing)),
        ((renewing,), on.Opened, "opened", (renewing, ready, running, closing)),
        ((closing,), on.Opened, "opened_closing", same),
        (gone, on.Opened, "opened_late", same),
        ((opening,), on.OpenFailed, "open_failed", (opening, ready, *over)),
        ((renewing,), on.OpenFailed, "open_failed", (renewing, ready, *over)),
        ((closing,), on.OpenFailed, "open_failed_closing", gone),
        (gone, on.OpenFailed, "ignore", same),
        ((opening, running, retrying, renewing), wire.MessageSend, "send", same),
        ((ready,), wire.MessageSend, "send", (opening, ready, running, renewing, closing)),
        ((closing, ended), wire.MessageSend, "send_late", same),
        ((closed,), wire.MessageSend, "ignore", same),
        ((opening, ready, running, renewing), wire.MessageCancel, "cancel", same),
        ((retrying,), wire.MessageCancel, "cancel", (*live, *over)),
        ((closing, ended), wire.MessageCancel, "cancel", same),
        ((closed,), wire.MessageCancel, "ignore", same),
        ((*live, closing), wire.EventAck, "acknowledge", same),
        ((ended,), wire.EventAck, "acknowledge_ended", gone),
        ((closed,), wire.EventAck, "ignore", same),
        ((running, closing), on.ReplyParts, "parts", same),
        ((renewing, *gone), on.ReplyParts, "ignore", same),
        ((running,), on.ReplyEnded, "replied", (opening, ready, running, renewing, *over)),
        ((renewing,), on.ReplyEnded, "replayed", (renewing, ready, running, *over)),
        ((closing,), on.ReplyEnded, "replied_closing", over),
        (gone, on.ReplyEnded, "replied_late", same),
        (
            (running,),
            on.InvokeFailed,
            "failed",
            (opening, ready, running, retrying, renewing, *over),
        ),
        ((renewing,), on.InvokeFailed, "replay_failed", (renewing, *over)),
        ((closing,), on.InvokeFailed, "failed_closing", over),
        (gone, on.InvokeFailed, "ignore", same),
        ((running,), on.InvokeCancelled, "cancelled", (opening, ready, running, renewing, *over)),
        ((closing,), on.InvokeCancelled, "cancelled_closing", over),
        (gone, on.InvokeCancelled, "ignore", same),
        ((opening, running, renewing), wire.SessionClose, "close", over),
        ((ready, retrying), wire.SessionClose, "close", over),
        (over, wire.SessionClose, "ignore", same),
        (live, on.Evicted, "expire", (*live, *over)),
        ((closing, closed), on.Evicted, "ignore", same),
        ((ended,), on.Evicted, "forget", (closed,)),
        (live, on.Drain, "drain", over),
        ((closing,), on.Drain, "drain_closing", same),
        ((ended,), on.Drain, "forget", (closed,)),
        ((closed,), on.Drain, "ignore", same),
        ((opening, running, retrying, renewing), on.Detached, "detached", same),
        ((ready,), on.Detached, "detached", (ready, *over)),
        ((closing,), on.Detached, "detached_closing", same),
        (gone, on.Detached, "ignore", same),
        (live, on.TimerFired, "timer", (*live, *over)),
        ((closing,), on.TimerFired, "timer_closing", gone),
        ((ended,), on.TimerFired, "forget", (closed,)),
        ((*live, *gone), on.CloseEnded, "close_ended_aside", same),
        ((closing,), on.CloseEnded, "close_ended", over),
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
