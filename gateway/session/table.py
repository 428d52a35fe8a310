"""The session's states, and the table of what each event does in each state."""

from enum import Enum

from gateway.protocol import messages as wire
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.transitions import Table, table


class State(Enum):
    """A session's state."""

    __hash__ = object.__hash__  # by identity: Enum's own is much slower

    OPENING = "opening"
    """A model session is being opened; messages wait."""
    READY = "ready"
    """No turn is at the model."""
    RUNNING = "running"
    """One turn is at the model; others may wait."""
    RETRYING = "retrying"
    """A turn was rejected before the model received it; it is retried after a backoff."""
    RENEWING = "renewing"
    """A model session that is gone is being replaced, or an imported conversation is being replayed
    to the first one; messages wait."""
    CLOSING = "closing"
    """The session has ended; its turn is being cancelled and its model session closed."""
    ENDED = "ended"
    """Closed at the model; a client that resumes still receives the last events."""
    CLOSED = "closed"
    """Over."""


_opening, _ready, _running, _retrying, _renewing, _closing, _ended, _closed = State
_waiting = (_opening, _renewing)
_live = (_opening, _ready, _running, _retrying, _renewing)
_gone = (_ended, _closed)
_over = (_closing, _ended, _closed)
_next = (_ready, _running, _renewing, *_over)
_begun = (_ready, _running, _retrying, _renewing)

TABLE: Table[State] = table(
    (
        # while, event, action, then (empty: only the state that it was in)
        ((_opening,), on.Start, "start", (_opening, _ready, _renewing)),
        ((_ready,), on.Adopted, "adopted", (_opening, _ready, _running, _renewing, *_over)),
        ((_opening, _retrying), on.Adopted, "adopted", ()),
        ((_renewing,), on.Adopted, "adopted", (_renewing, _ready, *_over)),
        ((_running,), on.Adopted, "adopted_running", _next),
        ((_closing,), on.Adopted, "adopted_closing", _over),
        ((_ended,), on.Adopted, "adopted_ended", ()),
        ((_ready, _opening, _renewing, _retrying), on.Forgotten, "forgotten", _over),
        ((_running,), on.Forgotten, "forgotten", (_closing,)),
        (_over, on.Forgotten, "ignore", ()),
        ((_ready,), on.Hold, "hold", (_opening, _ready, _running, _renewing, _closing)),
        ((*_waiting, _running, _retrying), on.Hold, "hold", ()),
        (_over, on.Hold, "ignore", ()),
        ((*_live, _closing, _ended), on.Attached, "attach", ()),
        ((*_live, _closing, _ended), on.Subscribed, "subscribe", ()),
        ((*_live, _closing, _ended), on.Confirmed, "confirm", ()),
        ((_closed,), on.Confirmed, "ignore", ()),
        ((*_live, _closing, _ended), on.Written, "written", ()),
        ((_closed,), on.Written, "ignore", ()),
        ((*_waiting, _running, _retrying), on.Detached, "detached", ()),
        ((_ready,), on.Detached, "detached_ready", (_ready, *_over)),
        ((_closing, *_gone), on.Detached, "detached_late", ()),
        ((*_waiting, _running, _retrying), wire.MessageSend, "send", ()),
        (
            (_ready,),
            wire.MessageSend,
            "send_ready",
            (_opening, _ready, _running, _renewing, _closing),
        ),
        ((_closing, _ended), wire.MessageSend, "send_late", ()),
        ((_closed,), wire.MessageSend, "ignore", ()),
        ((*_waiting, _ready, _running, _closing, _ended), wire.MessageCancel, "cancel", ()),
        ((_retrying,), wire.MessageCancel, "cancel_retrying", (_retrying, *_next)),
        ((_closed,), wire.MessageCancel, "ignore", ()),
        ((*_live, _closing), wire.EventAck, "acknowledge", ()),
        ((_ended,), wire.EventAck, "acknowledge_ended", _gone),
        ((_closed,), wire.EventAck, "ignore", ()),
        ((*_waiting, _ready, _retrying), wire.SessionClose, "close", _over),
        ((_running,), wire.SessionClose, "close", (_closing,)),
        (_over, wire.SessionClose, "ignore", ()),
        ((_opening,), on.Opened, "model_says", (_ready, _running, _closing)),
        ((_renewing,), on.Opened, "model_says", (_renewing, _ready, _running, _closing)),
        ((_opening,), on.OpenFailed, "model_says", (_opening, _ready, *_gone)),
        ((_renewing,), on.OpenFailed, "model_says", (_renewing, _ready, *_over)),
        ((_closing,), on.Opened, "model_says", (_closing,)),
        ((_closing,), on.OpenFailed, "model_says", _over),
        (_gone, on.Opened, "model_says", ()),
        (_gone, on.OpenFailed, "model_says", ()),
        ((_running, _closing), on.ReplyParts, "parts", ()),
        ((_renewing, *_gone), on.ReplyParts, "ignore", ()),
        ((_running, _closing), on.Submitted, "submitted", ()),
        (_gone, on.Submitted, "ignore", ()),
        ((_running,), on.ReplyEnded, "replied", _next),
        ((_renewing,), on.ReplyEnded, "model_says", (_renewing, _ready, _running, *_over)),
        ((_closing,), on.ReplyEnded, "replied_closing", _over),
        (_gone, on.ReplyEnded, "model_says", ()),
        ((_running,), on.InvokeFailed, "failed", (_retrying, *_next)),
        ((_renewing,), on.InvokeFailed, "model_says", (_renewing, _ready, *_over)),
        ((_closing,), on.InvokeFailed, "failed_closing", _over),
        (_gone, on.InvokeFailed, "model_says", ()),
        ((_running,), on.InvokeCancelled, "cancelled", _next),
        ((_closing,), on.InvokeCancelled, "cancelled_closing", _over),
        (_gone, on.InvokeCancelled, "model_says", ()),
        ((*_begun, *_gone), on.CloseEnded, "model_says", ()),
        ((_closing,), on.CloseEnded, "model_says", _over),
        ((_running,), Timer.EXPIRY, "expire_running", (_running, _closing)),
        ((_ready,), Timer.EXPIRY, "model_says", (_ready, _closing)),
        ((_retrying,), Timer.EXPIRY, "model_says", (_retrying, _closing)),
        ((_renewing,), Timer.EXPIRY, "model_says", (_closing,)),
        (_begun, Timer.EXPIRING, "model_says", ()),
        (_waiting, Timer.RETRY_OPEN, "model_says", ()),
        ((_renewing,), Timer.RETRY_REPLAY, "model_says", ()),
        ((_retrying,), Timer.RETRY_TURN, "send_again", (_ready, _running, _renewing, _closing)),
        ((_ready,), Timer.IDLE, "idle", (_ready, *_over)),
        ((_renewing, _running, _retrying), Timer.IDLE, "not_idle", ()),
        ((_ready,), Timer.DETACHED, "abandoned", (_ready, *_over)),
        ((*_waiting, _running, _retrying), Timer.DETACHED, "abandoned_busy", ()),
        ((_closing,), Timer.CLOSING, "give_up", _gone),
        ((_ended,), Timer.DETACHED, "forget", (_closed,)),
        ((*_waiting, _ready, _retrying), on.Evict, "evict", _over),
        ((_running,), on.Evict, "evict", (_closing,)),
        (_over, on.Evict, "ignore", ()),
        ((*_waiting, _ready, _retrying), on.Drain, "drain", (_closing, _closed)),
        ((_running,), on.Drain, "drain", (_closing,)),
        ((_closing,), on.Drain, "drain_closing", ()),
        ((_ended,), on.Drain, "forget", (_closed,)),
        ((_closed,), on.Drain, "ignore", ()),
    )
)
"""Every pair of state and event that can happen."""
