"""The model session's states, events and signs, and the table of its transitions."""

from enum import Enum

from msgspec import Struct

from gateway.errors import Failure
from gateway.protocol.messages import ClosedReason
from gateway.session import events as on
from gateway.session.events import Timer
from gateway.session.policy import Recovery
from gateway.session.ports import ModelReply
from gateway.session.transitions import Table, table


class Life(Enum):
    """The state of the model session."""

    __hash__ = object.__hash__  # by identity: Enum's own is much slower

    ABSENT = "absent"
    """There is none; it is opened when a turn needs it, or by the turn itself."""
    OPENING = "opening"
    """It is being opened."""
    WAITING = "waiting"
    """A call was rejected before the model received it; it is retried after a backoff."""
    REPLAYING = "replaying"
    """The conversation is being replayed to a new one."""
    OPEN = "open"
    """It can be used for turns."""
    STOPPING = "stopping"
    """It will be closed once the call in progress has ended or is cancelled."""
    CLOSING = "closing"
    """It is being closed."""
    CLOSED = "closed"
    """It is closed, and none will be opened."""


class Prepare(Struct, frozen=True, gc=False):
    """No turn is at the model, and the model session is not open, or has expired.

    Attributes:
        wanted: Whether a turn waits.
    """

    wanted: bool


class Replied(Struct, frozen=True, gc=False):
    """A reply to a turn affects the model session."""

    reply: ModelReply


class Lost(Struct, frozen=True, gc=False):
    """The model no longer knows the session.

    Attributes:
        recovery: What happens to the conversation.
    """

    recovery: Recovery


class Release(Struct, frozen=True, gc=False):
    """Close the model session.

    Attributes:
        busy: Whether a turn is at the model, which has to end first.
    """

    busy: bool


class GiveUp(Struct, frozen=True, gc=False):
    """Stop waiting for calls in progress."""


class Acquired(Struct, frozen=True, gc=False):
    """A model session was opened.

    Attributes:
        renewed: Whether it is part of a renewal, whose end is reported to the client.
    """

    renewed: bool


class Usable(Struct, frozen=True, gc=False):
    """A turn may be sent."""


class Unavailable(Struct, frozen=True, gc=False):
    """No model session could be opened, and the turns that wait now won't get another attempt."""

    failure: Failure


class Gone(Struct, frozen=True, gc=False):
    """The model session is gone, and won't be replaced."""

    reason: ClosedReason


class Quiet(Struct, frozen=True, gc=False):
    """Nothing is in progress at the model any more."""


Sign = Acquired | Usable | Unavailable | Gone | Quiet
"""What an event of the model session means for the session."""

_absent, _opening, _waiting, _replaying, _open, _stopping, _closing, _closed = Life
_acquired = (_absent, _opening, _waiting, _replaying, _open)
_over = (_stopping, _closing, _closed)

UPSTREAM: Table[Life] = table(
    (
        # while, event, action, then (empty: only the state that it was in)
        ((_absent,), Prepare, "acquire", (_absent, _opening, _replaying)),
        ((_open,), Prepare, "replace", (_open, _absent, _opening, _replaying)),
        ((_opening,), on.Opened, "opened", (_open, _replaying)),
        ((_opening,), on.OpenFailed, "open_failed", (_waiting, _absent)),
        ((_waiting,), Timer.RETRY_OPEN, "open", (_opening,)),
        ((_waiting,), Timer.RETRY_REPLAY, "replay", (_replaying,)),
        ((_replaying,), on.ReplyEnded, "step_replied", (_replaying, _open, _absent)),
        ((_replaying,), on.InvokeFailed, "step_failed", (_waiting, _open, _absent)),
        ((_absent, _open), Replied, "replied", (_absent, _open)),
        ((_absent, _open), Lost, "lost", (_absent,)),
        ((_open,), Timer.EXPIRY, "expire", (_open, _absent)),
        ((_waiting, _replaying), Timer.EXPIRY, "expire_unused", ()),
        ((_waiting, _replaying, _open), Timer.EXPIRING, "warn", ()),
        ((_absent,), Release, "release", _over),
        ((_waiting,), Release, "release", (_closing, _closed)),
        ((_open,), Release, "release", (_stopping, _closing)),
        ((_opening, _replaying), Release, "stop", (_stopping,)),
        ((_stopping,), on.Opened, "opened_for_nobody", (_closing,)),
        ((_stopping,), on.OpenFailed, "stopped", (_closing, _closed)),
        ((_stopping,), on.ReplyEnded, "replied_last", (_closing, _closed)),
        ((_stopping,), on.InvokeFailed, "failed_last", (_closing, _closed)),
        ((_stopping,), on.InvokeCancelled, "stopped", (_closing, _closed)),
        ((_closing,), on.CloseEnded, "close_ended", (_closing, _closed)),
        ((*_acquired, _stopping, _closed), on.CloseEnded, "close_ended_aside", ()),
        ((_stopping, _closing), GiveUp, "give_up", (_closed,)),
        ((_absent, _open, _closed, _closing), on.Adopted, "close_again", ()),
        ((_opening,), on.Adopted, "open_again", ()),
        ((_waiting,), on.Adopted, "wait_again", (_waiting, _absent)),
        ((_replaying,), on.Adopted, "replay_again", (_absent,)),
        ((_stopping,), on.Adopted, "stop_again", (_closing, _closed)),
        ((_closed,), on.Opened, "opened_late", ()),
        ((_closed,), on.ReplyEnded, "replied_late", ()),
        ((_closed,), on.OpenFailed, "ignore", ()),
        ((_closed,), on.InvokeFailed, "ignore", ()),
        ((_closed,), on.InvokeCancelled, "ignore", ()),
    )
)
"""Every pair of state and event that can happen to a model session."""
