"""The life of a session at the model: its states, what happens to it, and what that means."""

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
    """Where the session at the model stands."""

    __hash__ = object.__hash__  # each is what it is; an Enum's own is much slower

    ABSENT = "absent"
    """There is none; one is asked for when a turn needs it, or comes of the turn itself."""
    OPENING = "opening"
    """The model is being asked for one."""
    WAITING = "waiting"
    """The model has refused a call without seeing it; it is made again in a while."""
    REPLAYING = "replaying"
    """A new one is being told what one that is gone knew."""
    OPEN = "open"
    """It carries turns."""
    STOPPING = "stopping"
    """It is to be closed; a call that is under way is being brought to an end."""
    CLOSING = "closing"
    """It is being closed."""
    CLOSED = "closed"
    """Nothing is open, and nothing will be."""


class Prepare(Struct, frozen=True, gc=False):
    """No turn is at the model, and it is not open, or has expired.

    Attributes:
        wanted: Whether one waits.
    """

    wanted: bool


class Replied(Struct, frozen=True, gc=False):
    """The model has answered a turn, and has said something of its session."""

    reply: ModelReply


class Lost(Struct, frozen=True, gc=False):
    """The model does not know the session any more.

    Attributes:
        recovery: What is to become of the conversation.
    """

    recovery: Recovery


class Release(Struct, frozen=True, gc=False):
    """Close the session at the model.

    Attributes:
        busy: Whether a turn is at the model, whose end comes first.
    """

    busy: bool


class GiveUp(Struct, frozen=True, gc=False):
    """Wait no longer for anything."""


class Acquired(Struct, frozen=True, gc=False):
    """The model has given a session.

    Attributes:
        renewed: Whether it is part of a renewal, of whose end the client is told.
    """

    renewed: bool


class Usable(Struct, frozen=True, gc=False):
    """A turn may be sent."""


class Unavailable(Struct, frozen=True, gc=False):
    """The model has given no session, and is not asked again for what waits now."""

    failure: Failure


class Gone(Struct, frozen=True, gc=False):
    """The session is over at the model, and nothing takes its place."""

    reason: ClosedReason


class Quiet(Struct, frozen=True, gc=False):
    """Nothing is under way at the model any more."""


Sign = Acquired | Usable | Unavailable | Gone | Quiet
"""What the life at the model means for the session."""

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
"""Every pair of state and event that can happen at the model's side."""
