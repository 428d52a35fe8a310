"""A gateway in front of containers that answer chats, for tests of what is answered with them."""

import base64
import json
from typing import Any

from openai.types.responses import Response

from tests.support.processes import Forgetful, Process

Json = dict[str, Any]

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
"""A tool that the containers call where the weather is spoken of."""

HEART = base64.b64encode(b"a picture of a heart").decode()
"""A picture, as far as the containers look at one."""


class Chat:
    """A gateway in front of containers that answer chats.

    Args:
        boxes: The containers.
        platform: The local SageMaker.
        url: The gateway's address.
    """

    def __init__(self, boxes: list[Forgetful], platform: Process, url: str) -> None:
        self._boxes = boxes
        self.platform = platform
        self.url = url

    def turns(self, mark: str) -> list[Json]:
        """The turns whose newest message has that in it, as the containers have received them."""
        return [
            turn
            for box in self._boxes
            for turn in box.received()
            if mark in json.dumps(turn["body"]["messages"][-1])
        ]

    def turn(self, mark: str) -> Json:
        """The one turn whose newest message has that in it."""
        (turn,) = self.turns(mark)
        return turn


def session_of(response: Response | str) -> str:
    """The session that has answered it, as far as its id tells."""
    return (response if isinstance(response, str) else response.id)[5:37]
