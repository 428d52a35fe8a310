"""``/openai/v1/conversations``: histories that responses extend, and clients edit.

A conversation is a list of entries, each a record that is only added if it does not exist. A
response reserves the next entry when it starts, so that of two concurrent responses one succeeds.
No other state has to be kept consistent.
"""

import secrets
import time
from functools import partial
from typing import Any

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.admission import Refused, Visitor
from gateway.errors import ErrorCode
from gateway.transports.drafts import body_of
from gateway.transports.exchange import principal_of
from gateway.transports.gate import ApiRequest
from gateway.transports.openai.errors import not_found
from gateway.transports.openai.gate import OpenAiGate
from gateway.transports.openai.items import Item, taken
from gateway.transports.openai.keeping import (
    Entry,
    Keeper,
    Thread,
    entry_name,
    items_in,
    record_name,
)
from gateway.transports.openai.paging import json_response, page
from gateway.transports.openai.past import CONVERSATION, Found, conversation_of, locked
from gateway.transports.openai.requests import (
    CreateConversation,
    CreateItems,
    UpdateConversation,
    parse,
)
from gateway.transports.openai.starting import Starter


class Conversations:
    """The handlers of conversations.

    Args:
        gate: Wraps the handlers.
        starter: Finds the results of responses.
        keeper: Stores conversations.
        most_bytes: Maximum size of a request.
    """

    def __init__(self, gate: OpenAiGate, starter: Starter, keeper: Keeper, most_bytes: int) -> None:
        self._gate = gate
        self._starter = starter
        self._keeper = keeper
        self._most_bytes = most_bytes

    def routes(self) -> list[BaseRoute]:
        """Return the paths' routes."""
        one = "/openai/v1/conversations/{conversation_id}"
        return [
            self._gate.path("/openai/v1/conversations", POST=self.create),
            self._gate.path(one, GET=self.retrieve, POST=self.update, DELETE=self.delete),
            self._gate.path(f"{one}/items", GET=self.items, POST=self.add),
            self._gate.path(f"{one}/items/{{item_id}}", GET=self.item, DELETE=self.remove),
        ]

    async def _body(self, request: ApiRequest, visitor: Visitor) -> bytes:
        body = await body_of(request, self._most_bytes)
        if wait := visitor.take(len(body)):
            text = "Rate limit exceeded; try again later."
            raise Refused(ErrorCode.RATE_LIMITED, text, wait)
        return body

    # A conversation

    async def create(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Create a conversation."""
        body = await self._body(request, visitor)
        asked = parse(body or b"{}", CreateConversation)
        conversation_id = f"{CONVERSATION}{secrets.token_hex(32)}"
        owner, name = principal_of(visitor), record_name("conversation", conversation_id)
        thread = Thread(owner=owner, created_at=int(time.time()), metadata=asked.metadata or {})
        if asked.items:
            items = taken(asked.items, secrets.token_hex(16))
            await self._keeper.put(entry_name(name, 0), Entry(owner=owner, items=items))
        await self._keeper.put(name, thread)
        return json_response(_shown(conversation_id, thread))

    async def _thread(self, request: Request, visitor: Visitor) -> Thread:
        """Return the conversation of a request.

        Raises:
            Refused: It does not exist, or belongs to another principal.
        """
        conversation_id = request.path_params["conversation_id"]
        name = record_name("conversation", conversation_id)
        thread = await self._keeper.get(name, principal_of(visitor), Thread)
        if thread is None:
            raise not_found(f"Conversation with id '{conversation_id[:200]}' not found.")
        return thread

    async def _found(self, request: Request, visitor: Visitor) -> Found:
        """Return the entries of a request's conversation."""
        thread = await self._thread(request, visitor)
        return await conversation_of(
            request.path_params["conversation_id"],
            thread.owner,
            self._keeper,
            partial(self._starter.settle, visitor),
        )

    async def retrieve(self, request: Request, visitor: Visitor) -> Response:
        """Return a conversation."""
        thread = await self._thread(request, visitor)
        return json_response(_shown(request.path_params["conversation_id"], thread))

    async def update(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Replace a conversation's metadata."""
        asked = parse(await self._body(request, visitor), UpdateConversation)
        thread = await self._thread(request, visitor)
        thread = structs.replace(thread, metadata=asked.metadata)
        conversation_id = request.path_params["conversation_id"]
        await self._keeper.replace(record_name("conversation", conversation_id), thread)
        return json_response(_shown(conversation_id, thread))

    async def delete(self, request: Request, visitor: Visitor) -> Response:
        """Delete a conversation."""
        found = await self._found(request, visitor)
        await self._keeper.delete(found.name)
        for number in reversed(range(len(found.entries))):
            await self._keeper.delete(entry_name(found.name, number))
        conversation_id = request.path_params["conversation_id"]
        content = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
        return json_response(content)

    # Its items

    async def items(self, request: Request, visitor: Visitor) -> Response:
        """List the items of a conversation."""
        found = await self._found(request, visitor)
        return json_response(page(items_in(found.entries), request.query_params))

    async def add(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Append items to a conversation."""
        asked = parse(await self._body(request, visitor), CreateItems)
        found = await self._found(request, visitor)
        items = taken(asked.items, secrets.token_hex(16))
        if found.entries and found.entries[-1].is_open:
            raise locked()
        self._keeper.bounds.check(len(found.entries), found.size, "items")
        entry = Entry(owner=principal_of(visitor), items=items)
        if not await self._keeper.add(entry_name(found.name, len(found.entries)), entry):
            raise locked()
        query = {"order": "asc", "limit": str(len(items))}
        return json_response(page(items, query))

    async def _place(self, request: Request, visitor: Visitor) -> tuple[Found, int, Item]:
        """Find an item, and the number of the entry that contains it."""
        found, item_id = await self._found(request, visitor), request.path_params["item_id"]
        for number, entry in enumerate(found.entries):
            for item in entry.items:
                if item.id == item_id:
                    return found, number, item
        raise not_found(f"Item with id '{item_id[:200]}' not found.")

    async def item(self, request: Request, visitor: Visitor) -> Response:
        """Return an item."""
        _, _, item = await self._place(request, visitor)
        return json_response(item)

    async def remove(self, request: Request, visitor: Visitor) -> Response:
        """Delete an item, which later responses then don't have in their history."""
        found, number, item = await self._place(request, visitor)
        entries = found.entries
        if entries[-1].is_open:
            raise locked()
        left = [each for each in entries[number].items if each.id != item.id]
        # Don't continue a session whose history contains the item.
        for index, entry in enumerate(entries):
            if index == number or entry.response_id is not None:
                items = left if index == number else entry.items
                changed = structs.replace(entry, items=items, response_id=None)
                await self._keeper.replace(entry_name(found.name, index), changed)
        thread = await self._thread(request, visitor)
        return json_response(_shown(request.path_params["conversation_id"], thread))


def _shown(conversation_id: str, thread: Thread) -> dict[str, Any]:
    return {
        "id": conversation_id,
        "object": "conversation",
        "created_at": thread.created_at,
        "metadata": thread.metadata,
    }
