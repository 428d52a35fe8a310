"""Why a session rejects a message that is valid by the protocol."""

from collections.abc import Collection

from msgspec import UNSET

from gateway.errors import ErrorCode
from gateway.protocol.messages import MessageSend
from gateway.session.bodies import refused_field
from gateway.session.policy import Policy


def refusal(
    message: MessageSend, options: Collection[str], policy: Policy, *, queued: int
) -> tuple[ErrorCode, str] | None:
    """Return the error code and text to reject a message with; None to accept it.

    Args:
        message: The client's message.
        options: The names of its options; see `gateway.session.bodies.options_of`.
        policy: The route's rules.
        queued: How many turns are waiting.
    """
    refused = refused_field(options, policy)
    if refused is not None:
        text = f"The route {policy.route} does not let clients set `{refused}`."
        return ErrorCode.FORBIDDEN, text
    if policy.json_only and message.text is not UNSET and message.content_type is UNSET:
        text = (
            f"The route {policy.route} takes JSON, not `text`: send `json`, or set the route's "
            "`request` or `format`."
        )
        return ErrorCode.VALIDATION_ERROR, text
    if queued >= policy.queued_messages:
        return ErrorCode.QUEUE_FULL, "Too many messages are queued; send it again later."
    return None
