"""What a response goes on from: another response, a conversation, or what a connection has."""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.errors import WAIT_SECONDS, ErrorCode, Outcome
from gateway.transports.openai.errors import Invalid, not_found
from gateway.transports.openai.ids import Handle, handle_of
from gateway.transports.openai.items import Item
from gateway.transports.openai.keeping import (
    Entry,
    Keeper,
    Kept,
    Thread,
    entry_name,
    record_name,
)
from gateway.transports.openai.requests import CreateResponse

RESPONSE = "resp_"
CONVERSATION = "conv_"

YOUNG_SECONDS = 10.0
"""How long it may take until all replicas can find what has just begun. After that, what is not
there is gone."""


class Past(NamedTuple):
    """What was said before a request.

    Attributes:
        param: The parameter that says what it goes on from.
        names: The names of the records that have it, the oldest first.
        head: The newest response's turn; None where no session has heard of this.
        is_heard: Whether that turn's session has heard all of it.
        route: The name of that session's route.
        entry: The name of the record that is to tell of the response; None where it belongs to no
            conversation.
        items: All of it; None where it has to be read from the records.
        size: How many bytes the records have, as far as that is known.
    """

    param: str = "input"
    names: tuple[str, ...] = ()
    head: Handle | None = None
    is_heard: bool = True
    route: str = ""
    entry: str | None = None
    items: list[Item] | None = None
    size: int = 0

    def __repr__(self) -> str:
        return f"<Past of {len(self.names)}>"


def no_previous(response_id: str) -> Invalid:
    """There is no such response to go on from."""
    text = f"Previous response with id '{response_id[:200]}' not found."
    return Invalid(text, "previous_response_id", code="previous_response_not_found")


def may_be_followed(kept: Kept, *, chat: bool) -> bool:
    """Whether another turn may take the place of one that has failed, in the same session.

    Args:
        kept: The one.
        chat: Whether all that is to be known is in each of its model's requests.
    """
    failed = kept.response.status == "failed"
    return failed and (chat or kept.outcome is Outcome.NOT_INVOKED)


Settle = Callable[[str, str], Awaitable[Kept | None]]
"""Finds a response by its id and its owner, and what has become of it if nobody has kept that."""


async def past_of(request: CreateResponse, owner: str, keeper: Keeper, settle: Settle) -> Past:
    """What a request goes on from.

    Raises:
        Invalid: It can't be gone on from.
    """
    if request.previous_response_id is not None:
        return await _after(request.previous_response_id, owner, settle)
    if request.conversation_id is not None:
        return await _in(request.conversation_id, owner, keeper, settle)
    return Past()


async def _after(response_id: str, owner: str, settle: Settle) -> Past:
    handle = handle_of(response_id, RESPONSE)
    kept = None if handle is None else await settle(response_id, owner)
    if kept is None:
        raise no_previous(response_id)
    response = kept.response
    if not response.is_over:
        text = "The previous response has not ended: wait for it, or cancel it."
        raise Invalid(text, "previous_response_id", code="previous_response_not_over")
    if response.status == "failed":
        text = "The previous response failed; continue the one before it."
        raise Invalid(text, "previous_response_id", code="previous_response_failed")
    names = (*kept.before, record_name("response", response_id))
    is_heard = not kept.input or bool(kept.message_id)
    return Past("previous_response_id", names, handle, is_heard, response.model)


class Found(NamedTuple):
    """A conversation's parts.

    Attributes:
        name: Of its record.
        entries: Its parts, which are over but for the last.
        size: How many bytes these are kept in.
    """

    name: str
    entries: list[Entry]
    size: int

    def __repr__(self) -> str:
        return f"<Found {len(self.entries)}>"


async def conversation_of(
    conversation_id: str, owner: str, keeper: Keeper, settle: Settle
) -> Found:
    """A conversation's parts. What nobody has written down of the last one's end is, by this.

    Args:
        conversation_id: Its id, of a conversation that there is.
        owner: Whose it is.
        keeper: Has them.
        settle: Finds out about a response.
    """
    name = record_name("conversation", conversation_id)
    found = await keeper.entries(name, owner)
    if found is None:
        text = "Part of this conversation is no longer kept."
        raise Invalid(text, "conversation", code="not_kept")
    entries, size = found
    if entries and entries[-1].is_open:
        last = entry_name(name, len(entries) - 1)
        entries[-1] = await _ended(last, entries[-1], keeper, settle)
    return Found(name, entries, size)


async def _ended(name: str, entry: Entry, keeper: Keeper, settle: Settle) -> Entry:
    """What has become of a part that was not over."""
    owner, response_id = entry.owner, entry.response_id or ""
    kept = await settle(response_id, owner)
    if kept is None:  # of one that is not stored, nothing else is kept once its end is
        entry = await keeper.get(name, owner, Entry) or entry
        if not entry.is_open or time.time() - entry.since <= YOUNG_SECONDS:
            return entry
    elif not kept.response.is_over:
        return entry
    found = Entry(owner=owner, items=[]) if kept is None else entry_of(kept)
    await keeper.put(name, found)
    if kept is not None and not kept.response.store:
        await keeper.delete(record_name("response", response_id))
    return found


def entry_of(kept: Kept) -> Entry:
    """A response that is over as a part of its conversation: an empty one where it has failed.

    Its place is not given away, since whoever had it may yet write there.
    """
    if kept.response.status == "failed":
        return Entry(owner=kept.owner, items=[])
    return Entry(owner=kept.owner, items=kept.items, response_id=kept.response.id)


def locked() -> Invalid:
    """Somebody else adds to a conversation just now."""
    text = "Another response of this conversation is running; send this again when it has ended."
    error = Invalid(text, "conversation", code="conversation_locked", status=409)
    error.code, error.retry_after = ErrorCode.QUEUE_FULL, WAIT_SECONDS  # it may be sent again
    return error


async def _in(conversation_id: str, owner: str, keeper: Keeper, settle: Settle) -> Past:
    name = record_name("conversation", conversation_id)
    if await keeper.get(name, owner, Thread) is None:
        raise not_found(
            f"Conversation with id '{conversation_id[:200]}' not found.", "conversation"
        )
    found = await conversation_of(conversation_id, owner, keeper, settle)
    entries = found.entries
    if entries and entries[-1].is_open:
        raise locked()
    head, is_heard, route = None, True, ""
    for entry in reversed(entries):
        if entry.response_id is not None:
            head = handle_of(entry.response_id, RESPONSE)
            kept = await keeper.response(entry.response_id, owner)
            route = "" if kept is None else kept.response.model
            break
        is_heard = is_heard and not entry.items
    names = tuple(entry_name(name, number) for number in range(len(entries)))
    place = entry_name(name, len(entries))
    return Past("conversation", names, head, is_heard, route, place, size=found.size)
