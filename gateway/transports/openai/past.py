"""Finds the history of a request: from a previous response or a conversation."""

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
"""Maximum time until all replicas can find a new session or response. After that, those that are
not found don't exist."""


class Past(NamedTuple):
    """The history of a request.

    Attributes:
        param: The request's parameter that refers to it.
        names: Names of its records, oldest first.
        head: Turn of the newest response; None if no session has any of the history.
        is_heard: Whether the session of that turn has the whole history.
        route: Name of that session's route.
        entry: Name of the conversation's entry that the response becomes; None if it belongs to no
            conversation.
        items: All items; None if they are to be read from the records.
        size: Total size of the records in bytes; 0 if it is unknown.
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
    """Error of a previous response that does not exist."""
    text = f"Previous response with id '{response_id[:200]}' not found."
    return Invalid(text, "previous_response_id", code="previous_response_not_found")


def may_be_followed(kept: Kept, *, chat: bool) -> bool:
    """Whether a turn has failed such that another may replace it in the same session.

    Args:
        kept: Response of the turn.
        chat: Whether each of the model's requests contains the whole conversation.
    """
    failed = kept.response.status == "failed"
    return failed and (chat or kept.outcome is Outcome.NOT_INVOKED)


Settle = Callable[[str, str], Awaitable[Kept | None]]
"""Reads a response by its id and owner; reads the session's log if its result is not stored yet."""


async def past_of(request: CreateResponse, owner: str, keeper: Keeper, settle: Settle) -> Past:
    """Find the history of a request.

    Raises:
        Invalid: It does not exist, or can't be continued.
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
    """A conversation.

    Attributes:
        name: Name of its record.
        entries: Its entries, of which only the last may be open.
        size: Total size of the entries' records in bytes.
    """

    name: str
    entries: list[Entry]
    size: int

    def __repr__(self) -> str:
        return f"<Found {len(self.entries)}>"


async def conversation_of(
    conversation_id: str, owner: str, keeper: Keeper, settle: Settle
) -> Found:
    """Read a conversation. If its last entry is open but the response has ended, this closes it.

    Args:
        conversation_id: Id of a conversation that exists.
        owner: Principal that it belongs to.
        keeper: Stores the entries.
        settle: Reads a response.

    Raises:
        Invalid: One of the entries has expired.
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
    """Close an open entry if its response has ended, and return it."""
    owner, response_id = entry.owner, entry.response_id or ""
    kept = await settle(response_id, owner)
    if kept is None:  # one that is not stored is deleted when its entry is closed
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
    """Return the entry of a response that has ended; it is empty if the response has failed.

    A failed response's entry is not deleted, because the replica that reserved it may yet write it.
    """
    if kept.response.status == "failed":
        return Entry(owner=kept.owner, items=[])
    return Entry(owner=kept.owner, items=kept.items, response_id=kept.response.id)


def locked() -> Invalid:
    """Error of a conversation that another request is adding to."""
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
