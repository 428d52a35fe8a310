"""How turns end: as the gateway says, or as far as is known where it says nothing."""

from typing import TypeVar

from msgspec import UNSET, UnsetType

from gateway.client.errors import MessageFailed
from gateway.client.turns import Reply
from gateway.errors import ErrorCode, Outcome
from gateway.protocol import messages as wire

T = TypeVar("T")


def given(value: T | UnsetType) -> T | None:
    """A field's value; None where it was left out."""
    return None if value is UNSET else value


def reply_of(done: wire.MessageDone) -> Reply:
    """The end of a turn that has not failed."""
    return Reply(
        id=done.id,
        status="cancelled" if done.status == "cancelled" else "completed",
        outcome=given(done.outcome),
        content_type=given(done.content_type),
        variant=given(done.invoked_production_variant),
        custom_attributes=given(done.custom_attributes),
        duration=done.duration_ms / 1000,
        deltas=done.deltas,
        dropped_turns=given(done.dropped_turns) or 0,
    )


def failure_of(error: wire.ErrorObject | wire.ErrorMessage, outcome: Outcome) -> MessageFailed:
    """The end of a turn that has."""
    return MessageFailed(
        error.message,
        code=error.code,
        outcome=outcome,
        retryable=error.retryable,
        retry_after=given(error.retry_after),
    )


def not_sent(code: ErrorCode, message: str, *, retryable: bool = False) -> MessageFailed:
    """The end of a turn whose message is not sent."""
    return MessageFailed(message, code=code, outcome=Outcome.NOT_INVOKED, retryable=retryable)


def unheard_of() -> MessageFailed:
    """The end of another process's turn that no event speaks of."""
    return MessageFailed(
        "whether this message was answered is not known; in the same session it can be sent again "
        "with the same id, and reaches the model at most once",
        code=ErrorCode.STREAM_BROKEN,
        outcome=Outcome.UNKNOWN,
    )


def lost_end(message_id: str, status: wire.Progress) -> Reply | MessageFailed:
    """The end of a turn that is known to have ended so, by an event that was lost."""
    if status == "failed":
        return MessageFailed(
            "the message failed; the reason is no longer available",
            code=ErrorCode.STREAM_BROKEN,
            outcome=Outcome.UNKNOWN,
        )
    cancelled = status == "cancelled"
    return Reply(
        id=message_id,
        status="cancelled" if cancelled else "completed",
        complete=False,
        outcome=Outcome.UNKNOWN if cancelled else None,
    )


def abandoned(why: str, *, unseen: bool) -> MessageFailed:
    """The end of a turn whose session is over.

    Args:
        why: The session is.
        unseen: Whether the message is known not to have reached the model.
    """
    return MessageFailed(
        why if unseen else f"{why}; the model may or may not have seen the message",
        code=ErrorCode.SESSION_LOST,
        outcome=Outcome.NOT_INVOKED if unseen else Outcome.UNKNOWN,
        retryable=unseen,
    )
