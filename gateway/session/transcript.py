"""What has been said in a session, as far as it is kept to be said again.

A model that keeps no history is sent it with each turn; another only when a new session takes the
place of one that is gone.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import structs

from gateway.formats.templates import fill, placeholders
from gateway.protocol.discretion import Discreet
from gateway.session.bodies import JSON, TEXT
from gateway.session.ports import ModelRequest
from gateway.session.sizes import utf8_size

Line = tuple[Literal["system", "user", "assistant"], str]
"""Who says something, and what."""


class Exchange(Discreet, frozen=True, gc=False):
    """A turn that the model has answered: the request to send again, or what was said in it.

    Attributes:
        request: As it was sent; without its body where that is not sent again.
        said: The user's words; empty where the request is what is kept.
        answered: The model's words, as far as the client has heard them.
    """

    request: ModelRequest
    said: str = ""
    answered: str = ""

    @property
    def size(self) -> int:
        """How many bytes it holds, but for the request's parameters."""
        return len(self.request.body) + utf8_size(self.said) + utf8_size(self.answered)


class Transcript:
    """The newest exchanges of a conversation.

    Args:
        max_turns: How many are kept.
        max_bytes: How much they may hold together; one that is larger by itself is not kept, nor is
            what was before it.
    """

    __slots__ = ("_exchanges", "_max_bytes", "_max_turns", "bytes", "dropped", "whole")

    def __init__(self, *, max_turns: int, max_bytes: int) -> None:
        self._max_turns = max_turns
        self._max_bytes = max_bytes
        self._exchanges: list[Exchange] = []
        self.bytes = 0
        """How many are held."""
        self.dropped = 0
        """How many exchanges there was no room for: the oldest."""
        self.whole = True
        """Whether all of the conversation is here."""

    def add(self, exchange: Exchange) -> None:
        """Keep an exchange, and drop the oldest that there is no room for."""
        self._exchanges.append(exchange)
        self.bytes += exchange.size
        while len(self._exchanges) > self._max_turns or self.bytes > self._max_bytes:
            self.bytes -= self._exchanges.pop(0).size
            self.dropped += 1
            self.whole = False

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Those that are kept, the oldest first."""
        return tuple(self._exchanges)

    @property
    def count(self) -> int:
        """How many there have been."""
        return self.dropped + len(self._exchanges)

    def newest(self, count: int) -> Sequence[Exchange]:
        """The newest of those that are kept, as many as there are."""
        return self._exchanges[max(0, len(self._exchanges) - count) :]

    @property
    def kept(self) -> int:
        """How many are kept."""
        return len(self._exchanges)

    def leave_out(self) -> None:
        """There was an exchange that can't be told again."""
        self.whole = False

    def turns(self) -> list[ModelRequest]:
        """The client's turns again, to be answered in one piece."""
        return [structs.replace(exchange.request, stream=False) for exchange in self._exchanges]

    def oldest(self, size: int) -> int:
        """How many of the oldest hold so many bytes; all, where those do not."""
        for number, exchange in enumerate(self._exchanges, 1):
            size -= exchange.size
            if size <= 0:
                return number
        return self.kept

    def lines(self, after: int = 0) -> list[Line]:
        """What was said, the oldest first.

        Args:
            after: How many of the oldest exchanges are left out.
        """
        lines: list[Line] = []
        for exchange in self._exchanges[after:]:
            lines += [("user", exchange.said), ("assistant", exchange.answered)]
        return lines

    def seed(self, template: Any) -> list[ModelRequest]:
        """One message that tells a new session of all; none where nothing was said.

        Args:
            template: A string, or JSON, with placeholders; see `told`.
        """
        lines = self.lines()
        if not lines:
            return []
        body = fill(template, told(lines, template))
        newest = structs.replace(self._exchanges[-1].request, stream=False)
        if isinstance(body, str):
            return [structs.replace(newest, body=body.encode(), content_type=TEXT)]
        return [structs.replace(newest, body=msgspec.json.encode(body), content_type=JSON)]


def told(lines: Iterable[Line], template: Any) -> dict[str, Any]:
    """What a template's placeholders for a conversation stand for.

    Returns:
        ``messages``, a list of ``{"role": …, "content": …}``, and ``transcript``, the same as text,
        as far as the template has a place for them.
    """
    names, values = placeholders(template), dict[str, Any]()
    if "messages" in names:
        values["messages"] = [{"role": role, "content": content} for role, content in lines]
    if "transcript" in names:
        values["transcript"] = "\n".join(f"{role.title()}: {text}" for role, text in lines)
    return values
