"""Session profiles: how a container opens, carries and closes a session, as data.

Sources: the session code of ``model-hosting-container-standards`` (which vLLM's SageMaker image
runs), DJL Serving's LMI containers, and AWS's stateful sample for TorchServe. A route may name one
of `PROFILES` or spell out its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from gateway.protocol.discretion import Discreet
from gateway.session.policy import Opening

JsonObject = dict[str, Any]
Status = Annotated[int, msgspec.Meta(ge=400, le=599)]


class Profile(Discreet, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a container keeps sessions.

    Attributes:
        opening: ``call`` where a call of its own opens the session, ``turn`` where the first turn
            does, ``none`` where there are no sessions.
        open_body: The JSON body of the call that opens; with `opening` ``call`` only.
        close_body: The JSON body of the call that closes; None where the container knows none, and
            the session is left to expire.
        session_id_key: The key under which JSON bodies carry the session id as well, where the
            header is not enough.
        prefix_aware: Send ``PrefixAwareId`` in place of a session: where the endpoint's variants
            route by ``PREFIX_AWARE``, the platform then prefers the instance that has seen the
            conversation, without a promise.
        lost: What an error of the container says, in any case, when it does not know the session.
        perhaps_lost: What it says then, but also when it fails in another way: the session counts
            as lost, and whether the model saw the turn as not known.
        full: What it says when it has no room for another.
        statuses: The statuses of errors that are read for these. Others may quote a user.
    """

    opening: Opening = Opening.CALL
    open_body: JsonObject | None = None
    close_body: JsonObject | None = None
    session_id_key: str | None = None
    prefix_aware: bool = False
    lost: tuple[str, ...] = ()
    perhaps_lost: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    # Where a container's ways are not known: what HTTP has for what is not there or has no room,
    # and what the known ones say. Not 422, which quotes what it does not accept, and not 500.
    statuses: tuple[Status, ...] = (400, 404, 410, 424, 503)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; msgspec reports a ValueError as its own."""
        if (self.open_body is not None) is not (self.opening is Opening.CALL):
            raise ValueError('`open_body` goes with `opening = "call"`, and is needed there')
        if self.opening is Opening.NONE and (self.close_body or self.session_id_key):
            raise ValueError('`opening = "none"` has no session to close or to name')
        if self.prefix_aware and self.opening is not Opening.NONE:
            raise ValueError('`prefix_aware` goes with `opening = "none"`')

    @property
    def opens_with_turn(self) -> bool:
        """Whether a turn outside of a session is to open one."""
        return self.opening is Opening.TURN


HANDLER_RAISED = "prediction failed"
"""TorchServe says no more than this, with status 503, when its handler raises: for an unknown
session, in the middle of a turn, for a body that it does not like."""

_LOST = ("session not found", "closed, or expired", "not received sequence_start")

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "container-standards": Profile(
            open_body={"requestType": "NEW_SESSION"},
            close_body={"requestType": "CLOSE"},
            lost=_LOST,
            # 400 to a turn and 424 to a close; LMI says 424 to both.
            statuses=(400, 424),
        ),
        "torchserve": Profile(
            open_body={"type": "start_session"},
            close_body={"type": "close_session"},
            session_id_key="session_id",
            lost=_LOST,
            perhaps_lost=(HANDLER_RAISED,),
            full=("maxsequencejobqueuesize",),
            statuses=(503,),
        ),
        "first-message": Profile(
            opening=Opening.TURN, close_body={"requestType": "CLOSE"}, lost=_LOST
        ),
        "prefix-aware": Profile(opening=Opening.NONE, prefix_aware=True),
        "stateless": Profile(opening=Opening.NONE),
    }
)
"""The profiles by name."""
