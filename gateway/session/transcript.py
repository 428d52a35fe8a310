"""The transcript of a session, as far as it is kept to be sent again.

A model that keeps no history is sent it with each turn; others only when a new model session
replaces one that is gone.
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
"""A role, and its text."""


class Exchange(Discreet, frozen=True, gc=False):
    """An answered turn: the request to send again, or the texts of both sides.

    Attributes:
        request: The request that was sent; without its body if that is not sent again.
        said: The user's text; empty if the request is kept instead.
        answered: The model's text, as far as the client has received it.
    """

    request: ModelRequest
    said: str = ""
    answered: str = ""

    @property
    def size(self) -> int:
        """Its size in bytes, without the request's options."""
        return len(self.request.body) + utf8_size(self.said) + utf8_size(self.answered)


class Transcript:
    """The newest exchanges of a conversation.

    Args:
        max_turns: How many are kept.
        max_bytes: Their largest total size; if one alone is larger, neither it nor those before it
            are kept.
    """

    __slots__ = ("_exchanges", "_max_bytes", "_max_turns", "bytes", "dropped", "whole")

    def __init__(self, *, max_turns: int, max_bytes: int) -> None:
        self._max_turns = max_turns
        self._max_bytes = max_bytes
        self._exchanges: list[Exchange] = []
        self.bytes = 0
        """The size of the kept exchanges."""
        self.dropped = 0
        """How many of the oldest exchanges were dropped."""
        self.whole = True
        """Whether the whole conversation is kept."""

    def add(self, exchange: Exchange) -> None:
        """Add an exchange, and drop the oldest ones that exceed the limits."""
        self._exchanges.append(exchange)
        self.bytes += exchange.size
        while len(self._exchanges) > self._max_turns or self.bytes > self._max_bytes:
            self.bytes -= self._exchanges.pop(0).size
            self.dropped += 1
            self.whole = False

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The kept exchanges, the oldest first."""
        return tuple(self._exchanges)

    @property
    def count(self) -> int:
        """How many exchanges were added."""
        return self.dropped + len(self._exchanges)

    def newest(self, count: int) -> Sequence[Exchange]:
        """Return the newest kept exchanges, at most `count`."""
        return self._exchanges[max(0, len(self._exchanges) - count) :]

    @property
    def kept(self) -> int:
        """How many exchanges are kept."""
        return len(self._exchanges)

    def leave_out(self) -> None:
        """Note that an exchange was left out, since it can't be sent again."""
        self.whole = False

    def turns(self) -> list[ModelRequest]:
        """Return the client's requests, to be sent again without streaming."""
        return [structs.replace(exchange.request, stream=False) for exchange in self._exchanges]

    def oldest(self, size: int) -> int:
        """Return how many of the oldest exchanges have this size together, at most all."""
        for number, exchange in enumerate(self._exchanges, 1):
            size -= exchange.size
            if size <= 0:
                return number
        return self.kept

    def lines(self, after: int = 0) -> list[Line]:
        """Return the texts of both sides, the oldest first.

        Args:
            after: How many of the oldest exchanges to leave out.
        """
        lines: list[Line] = []
        for exchange in self._exchanges[after:]:
            lines += [("user", exchange.said), ("assistant", exchange.answered)]
        return lines

    def seed(self, template: Any) -> list[ModelRequest]:
        """Return one request that gives a new session the conversation; none if it is empty.

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
    """Return the values of a template's placeholders for a conversation.

    Returns:
        ``messages``, a list of ``{"role": …, "content": …}``, and ``transcript``, the same as text,
        if the template contains them.
    """
    names, values = placeholders(template), dict[str, Any]()
    if "messages" in names:
        values["messages"] = [{"role": role, "content": content} for role, content in lines]
    if "transcript" in names:
        values["transcript"] = "\n".join(f"{role.title()}: {text}" for role, text in lines)
    return values
