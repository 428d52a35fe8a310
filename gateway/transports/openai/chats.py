"""Parses requests for chat completions, and derives the digests of their histories. Pure."""

import contextlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.protocol.discretion import Discreet
from gateway.session.events import Words
from gateway.transports.openai.errors import Invalid, unsupported
from gateway.transports.openai.requests import converted, value_of
from gateway.transports.told import in_turns

Message = Mapping[str, Any]

_OWN = frozenset(
    {"model", "stream", "store", "metadata", "prompt_cache_key", "prompt_cache_retention"}
)
"""Parameters for the gateway, which are not sent to the model."""

_WORDS = frozenset({"messages", "stream_options", "user", "safety_identifier"}) | _OWN
"""Parameters that routes of text models support or may ignore."""

_NEUTRAL: Mapping[str, Sequence[Any]] = MappingProxyType(
    {
        "n": [1],
        "temperature": [1],
        "top_p": [1],
        "frequency_penalty": [0],
        "presence_penalty": [0],
        "logprobs": [False],
        "tools": [[]],
        "functions": [[]],
        "tool_choice": ["none", "auto"],
        "parallel_tool_calls": [True, False],
        "response_format": [{"type": "text"}],
        "modalities": [["text"]],
        "service_tier": ["auto", "default"],
        "logit_bias": [{}],
        "stop": [[]],
    }
)
"""Values of other parameters that don't change anything."""

_SYSTEM = frozenset({"system", "developer"})


class _Role(Discreet, frozen=True):
    role: str


class StreamOptions(Discreet, frozen=True, forbid_unknown_fields=True):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Request(Discreet, frozen=True):
    """The part of a request that the gateway itself reads."""

    model: str
    messages: Annotated[list[_Role], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None


class Chat(Discreet, frozen=True):
    """A request for a chat completion.

    Attributes:
        model: Name of a route.
        messages: The whole conversation, oldest message first.
        streams: Whether the client wants chunks.
        includes_usage: Whether the client wants the usage in the last chunk.
        cache_key: Value of ``prompt_cache_key``.
        body: Parameters for the model: all except the gateway's own.
    """

    model: str
    messages: list[dict[str, Any]]
    streams: bool
    includes_usage: bool
    cache_key: str | None
    body: dict[str, Any]

    @property
    def before(self) -> list[dict[str, Any]]:
        """The history: all messages up to the model's last."""
        at = len(self.messages)
        while at and self.messages[at - 1]["role"] != "assistant":
            at -= 1
        return self.messages[:at]


def read_chat(body: bytes) -> Chat:
    """Parse a request.

    Raises:
        Invalid: It is malformed, or has a parameter that no route supports.
    """
    value = value_of(body)
    asked = converted(value, _Request)
    if asked.store:
        raise unsupported("store", "Chat completions are not stored; use responses.")
    if asked.metadata:
        raise unsupported("metadata", "Chat completions are not stored; use responses.")
    options = asked.stream_options
    if options is not None and options.include_obfuscation:
        raise unsupported("stream_options.include_obfuscation", "Obfuscation is not supported.")
    given = {name: each for name, each in value.items() if each is not None and name not in _OWN}
    return Chat(
        model=asked.model,
        messages=value["messages"],
        streams=bool(asked.stream),
        includes_usage=bool(options and options.include_usage),
        cache_key=asked.prompt_cache_key,
        body=given,
    )


# Words


def check_words(chat: Chat) -> None:
    """Check that a text model supports all parameters of a request.

    Raises:
        Invalid: It doesn't.
    """
    text = "This route's model takes text only, and does not support this."
    for name, value in chat.body.items():
        if name not in _WORDS and value not in _NEUTRAL.get(name, ()):
            raise unsupported(name, text)
    if chat.includes_usage:
        text = "This route's model does not report its usage."
        raise unsupported("stream_options.include_usage", text)


def newest_words(chat: Chat) -> str:
    """Return the text of the messages after the model's last.

    Raises:
        Invalid: They have more than text, or there are none.
    """
    at = len(chat.before)
    newest = [_words_at(chat, number) for number in range(at, len(chat.messages))]
    if not newest:
        raise Invalid("The last message must be the user's.", "messages")
    return "\n\n".join(newest)


def words_before(chat: Chat) -> tuple[Words, ...]:
    """Return the history as turns.

    Raises:
        Invalid: It has more than text.
    """
    return in_turns(
        ("assistant" if message["role"] == "assistant" else "user", _words_at(chat, number))
        for number, message in enumerate(chat.before)
    )


def _words_at(chat: Chat, number: int) -> str:
    """Return the text of a message of the user or the model."""
    message, place = chat.messages[number], f"messages[{number}]"
    role = message["role"]
    if role in _SYSTEM:
        text = "The system message is in this route's configuration (`system`)."
        raise unsupported(place, text)
    if role not in {"user", "assistant"} or any(map(message.get, ("tool_calls", "function_call"))):
        raise unsupported(place, "This route's model takes text only, and calls no functions.")
    for name in ("name", "audio"):
        if message.get(name):
            raise unsupported(f"{place}.{name}", "This route's model takes text only.")
    words = _text(message.get("content"))
    if words is None:
        raise unsupported(f"{place}.content", "This route's model takes text only.")
    return words


def _text(content: Any) -> str | None:
    """Return content as text; None if it has anything else."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = list[str]()
    for part in content if isinstance(content, list) else [None]:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
        if not isinstance(text, str):
            return None
        parts.append(text)
    return "".join(parts)


# Digests of conversations


def digest_of(owner: str, model: str, messages: Sequence[Message]) -> str:
    """Return the digest of a conversation; it doesn't depend on how a client formats the messages.

    Args:
        owner: Principal that it belongs to.
        model: Name of the route.
        messages: All of its messages.
    """
    return _digest(owner, model, [_canonical(message) for message in messages])


def alias_of(owner: str, model: str, name: str) -> str:
    """Return the digest of the name that a client gave to a conversation; see `digest_of`."""
    return _digest(owner, model, name)


def _digest(*what: Any) -> str:
    return sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()


def _canonical(message: Message) -> Any:
    role, content = message.get("role"), message.get("content")
    text = _text(content)
    calls = message.get("tool_calls") or ()
    return [
        "system" if role in _SYSTEM else role,
        content if text is None else text.strip(),
        [_call(call) for call in calls] if isinstance(calls, list) else [],
        message.get("tool_call_id"),
    ]


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    with contextlib.suppress(msgspec.DecodeError, TypeError, RecursionError):
        arguments = msgspec.json.decode(arguments or "{}")  # some clients reformat them
    return [call.get("id"), function.get("name"), arguments]
