"""``/openai/v1/conversations``: what is said in several responses, and what clients add to it.

A conversation is a list of entries, each a record that is added once: a response that begins takes
the next place in it, so that of two at once one does. There is nothing else to keep in step.
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
    """The paths of conversations.

    Args:
        gate: In front of them.
        starter: Knows what becomes of responses.
        keeper: Keeps what is said.
        most_bytes: How large a request may be.
    """

    def __init__(self, gate: OpenAiGate, starter: Starter, keeper: Keeper, most_bytes: int) -> None:
        self._gate = gate
        self._starter = starter
        self._keeper = keeper
        self._most_bytes = most_bytes

    def routes(self) -> list[BaseRoute]:
        """The paths."""
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
        """Begin a conversation."""
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
        """The conversation that is asked for.

        Raises:
            Refused: There is none for who asks.
        """
        conversation_id = request.path_params["conversation_id"]
        name = record_name("conversation", conversation_id)
        thread = await self._keeper.get(name, principal_of(visitor), Thread)
        if thread is None:
            raise not_found(f"Conversation with id '{conversation_id[:200]}' not found.")
        return thread

    async def _found(self, request: Request, visitor: Visitor) -> Found:
        """What is said in it."""
        thread = await self._thread(request, visitor)
        return await conversation_of(
            request.path_params["conversation_id"],
            thread.owner,
            self._keeper,
            partial(self._starter.settle, visitor),
        )

    async def retrieve(self, request: Request, visitor: Visitor) -> Response:
        """Give a conversation."""
        thread = await self._thread(request, visitor)
        return json_response(_shown(request.path_params["conversation_id"], thread))

    async def update(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Give it other metadata."""
        asked = parse(await self._body(request, visitor), UpdateConversation)
        thread = await self._thread(request, visitor)
        thread = structs.replace(thread, metadata=asked.metadata)
        conversation_id = request.path_params["conversation_id"]
        await self._keeper.replace(record_name("conversation", conversation_id), thread)
        return json_response(_shown(conversation_id, thread))

    async def delete(self, request: Request, visitor: Visitor) -> Response:
        """Keep a conversation no longer."""
        found = await self._found(request, visitor)
        await self._keeper.delete(found.name)
        for number in reversed(range(len(found.entries))):
            await self._keeper.delete(entry_name(found.name, number))
        conversation_id = request.path_params["conversation_id"]
        content = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
        return json_response(content)

    # What is said in it

    async def items(self, request: Request, visitor: Visitor) -> Response:
        """List what is said in it."""
        found = await self._found(request, visitor)
        return json_response(page(items_in(found.entries), request.query_params))

    async def add(self, request: ApiRequest, visitor: Visitor) -> Response:
        """Add to what is said."""
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
        """Where an item is."""
        found, item_id = await self._found(request, visitor), request.path_params["item_id"]
        for number, entry in enumerate(found.entries):
            for item in entry.items:
                if item.id == item_id:
                    return found, number, item
        raise not_found(f"Item with id '{item_id[:200]}' not found.")

    async def item(self, request: Request, visitor: Visitor) -> Response:
        """Give one item."""
        _, _, item = await self._place(request, visitor)
        return json_response(item)

    async def remove(self, request: Request, visitor: Visitor) -> Response:
        """Keep an item no longer: what goes on from here has not heard it."""
        found, number, item = await self._place(request, visitor)
        entries = found.entries
        if entries[-1].is_open:
            raise locked()
        left = [each for each in entries[number].items if each.id != item.id]
        # No session is gone on with that has heard it.
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
