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
        opening: ``call`` if a separate call opens the session, ``turn`` if the first turn does,
            ``none`` if there are no sessions.
        open_body: The JSON body of the call that opens; only with `opening` ``call``.
        close_body: The JSON body of the call that closes; None if the container has no such call,
            and sessions are left to expire.
        session_id_key: The key under which JSON bodies contain the session id too, if the header
            is not enough.
        prefix_aware: Send ``PrefixAwareId`` instead of a session id: if the endpoint's variants
            route by ``PREFIX_AWARE``, the platform then prefers the instance that has seen the
            conversation, without a guarantee.
        lost: Texts in the container's error for an unknown session, in any case.
        perhaps_lost: Texts in its error for an unknown session, but in others too: the session
            counts as lost, and it is unknown whether the model saw the turn.
        full: Texts in its error when it has no room for another session.
        statuses: The statuses of errors that are searched for these. Others may quote a user.
    """

    opening: Opening = Opening.CALL
    open_body: JsonObject | None = None
    close_body: JsonObject | None = None
    session_id_key: str | None = None
    prefix_aware: bool = False
    lost: tuple[str, ...] = ()
    perhaps_lost: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    # For unknown containers: HTTP's statuses for what doesn't exist or has no room, and those of
    # known containers. Not 422, which quotes what is invalid, and not 500.
    statuses: tuple[Status, ...] = (400, 404, 410, 424, 503)

    def __post_init__(self) -> None:
        """Reject contradictions; msgspec reports a ValueError as its own."""
        if (self.open_body is not None) is not (self.opening is Opening.CALL):
            raise ValueError('`open_body` goes with `opening = "call"`, and is needed there')
        if self.opening is Opening.NONE and (self.close_body or self.session_id_key):
            raise ValueError('`opening = "none"` has no session to close or to name')
        if self.prefix_aware and self.opening is not Opening.NONE:
            raise ValueError('`prefix_aware` goes with `opening = "none"`')

    @property
    def opens_with_turn(self) -> bool:
        """Whether a turn outside of a session opens one."""
        return self.opening is Opening.TURN


HANDLER_RAISED = "prediction failed"
"""TorchServe's only text, with status 503, when its handler raises: for an unknown session, during
a turn, or for an invalid body."""

_LOST = ("session not found", "closed, or expired", "not received sequence_start")

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "container-standards": Profile(
            open_body={"requestType": "NEW_SESSION"},
            close_body={"requestType": "CLOSE"},
            lost=_LOST,
            # 400 for a turn and 424 for a close; LMI responds 424 to both.
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
