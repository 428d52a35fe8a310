"""What has been said in a session, as far as it is kept to be said again to a new one."""

from typing import Any

import msgspec
from msgspec import Struct, structs

from gateway.session.ports import ModelRequest
from gateway.session.templates import fill

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Exchange(Struct, frozen=True, gc=False):
    """A turn that the model has answered: the request to send again, or what was said in it.

    Attributes:
        request: As it was sent; without its body where that is not sent again.
        said: The user's words; None where they were no text.
        answered: The model's words; empty where they were no text.
    """

    request: ModelRequest
    said: str | None = None
    answered: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return len(self.request.body) + len(self.said or "") + len(self.answered)


class Transcript:
    """The newest exchanges of a conversation.

    Args:
        max_turns: How many are kept.
        max_bytes: How much they may hold together; one that is larger is not kept at all.
    """

    __slots__ = ("_bytes", "_exchanges", "_max_bytes", "_max_turns")

    def __init__(self, *, max_turns: int, max_bytes: int) -> None:
        self._max_turns = max_turns
        self._max_bytes = max_bytes
        self._exchanges: list[Exchange] = []
        self._bytes = 0

    def add(self, exchange: Exchange) -> None:
        """Keep an exchange, and drop the oldest that there is no room for."""
        self._exchanges.append(exchange)
        self._bytes += exchange.size
        while len(self._exchanges) > self._max_turns or self._bytes > self._max_bytes:
            self._bytes -= self._exchanges.pop(0).size

    def turns(self) -> list[ModelRequest]:
        """The client's turns again, to be answered in one piece."""
        return [structs.replace(exchange.request, stream=False) for exchange in self._exchanges]

    def seed(self, template: Any) -> list[ModelRequest]:
        """One message that tells a new session of all; none where nothing was said.

        Args:
            template: A string, or JSON, in which ``$transcript`` stands for the conversation as
                text and ``$messages`` for a list of ``{"role": …, "content": …}``.
        """
        spoken = [exchange for exchange in self._exchanges if exchange.said is not None]
        if not spoken:
            return []
        lines = [f"User: {one.said}\nAssistant: {one.answered}" for one in spoken]
        messages = [
            {"role": role, "content": content}
            for one in spoken
            for role, content in (("user", one.said), ("assistant", one.answered))
        ]
        body = fill(template, {"transcript": "\n".join(lines), "messages": messages})
        newest = structs.replace(spoken[-1].request, stream=False, sha256=None)
        if isinstance(body, str):
            return [structs.replace(newest, body=body.encode(), content_type=TEXT)]
        return [structs.replace(newest, body=msgspec.json.encode(body), content_type=JSON)]
