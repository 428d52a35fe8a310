"""Pagination of lists as in OpenAI's API, and responses in JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.transports.openai.errors import Invalid
from gateway.transports.openai.items import Item

MAX_LIMIT = 100
"""Maximum number of items in a page."""

_LIMIT = 20


def page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of items.

    Args:
        items: All items, oldest first.
        query: Parameters of the request: ``order``, ``limit`` and ``after``.

    Raises:
        Invalid: A parameter is invalid.
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
    """Return a response in JSON that must not be cached."""
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(content), media_type="application/json", headers=headers)
