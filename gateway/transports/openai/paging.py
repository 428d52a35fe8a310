"""Lists in pages, as OpenAI's clients turn them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.transports.openai.errors import Invalid
from gateway.transports.openai.items import Item

MAX_LIMIT = 100
"""The most that a page has."""

_LIMIT = 20


def page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of items.

    Args:
        items: All of them, the oldest first.
        query: Which are wanted.

    Raises:
        Invalid: It asks for what can't be.
    """
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise Invalid("'order' must be 'asc' or 'desc'.", "order")
    limit = query.get("limit", str(_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= MAX_LIMIT):
        raise Invalid(f"'limit' must be from 1 to {MAX_LIMIT}.", "limit")
    ordered = list(items if order == "asc" else reversed(items))
    after = query.get("after")
    if after is not None:
        ids = [item.id for item in ordered]
        if after not in ids:
            raise Invalid("There is no item with this id.", "after")
        ordered = ordered[ids.index(after) + 1 :]
    data = ordered[: int(limit)]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
        "has_more": len(ordered) > len(data),
    }


def json_response(content: object) -> Response:
    """An answer that is nobody else's."""
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(content), media_type="application/json", headers=headers)
