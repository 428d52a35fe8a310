"""OpenAI's own client, whose every answer is held to the specification."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
from openai.types.responses import Response, ResponseStreamEvent

from tests.support.openresponses import check_response, check_stream
from tests.support.timing import UNIT

Json = dict[str, Any]

KEY = "not-asked-for"


@contextmanager
def client(url: str, key: str = KEY, **more: Any) -> Iterator[openai.OpenAI]:
    """A client of a gateway, as its documents say to make one."""
    with openai.OpenAI(base_url=f"{url}/openai/v1", api_key=key, timeout=60 * UNIT, **more) as sdk:
        yield sdk


def checked(response: Response) -> Response:
    """A response that is as the specification has it."""
    check_response(response.to_dict(mode="json"))
    return response


def events_of(stream: Iterable[ResponseStreamEvent]) -> list[Json]:
    """The events of a stream."""
    return [event.to_dict(mode="json") for event in stream]


def streamed(stream: Iterable[ResponseStreamEvent], after: int = -1) -> tuple[Json, list[Json]]:
    """A response, and its events after one, which are as the specification has them."""
    events = events_of(stream)
    return check_stream(events, after=after), events


def text_of(response: Json) -> str:
    """What the model has said."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )
