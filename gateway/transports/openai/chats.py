"""Requests for chat completions: what they ask for, and what was said before. Pure."""

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
"""Parameters that say something to the gateway, and nothing to a model."""

_WORDS = frozenset({"messages", "stream_options", "user", "safety_identifier"}) | _OWN
"""Those that a route heeds, or need not heed, whose model takes words."""

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
"""Values of other parameters that ask for nothing but what is done anyway."""

_SYSTEM = frozenset({"system", "developer"})


class _Role(Discreet, frozen=True):
    role: str


class StreamOptions(Discreet, frozen=True, forbid_unknown_fields=True):
    """What a stream is to have."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Request(Discreet, frozen=True):
    """What the gateway itself reads of a request."""

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
        model: A route's name.
        messages: All that was said, the newest last.
        streams: Whether the answer is wanted in chunks.
        includes_usage: Whether the last of these is to say what was used.
        cache_key: What the client calls the beginning of its requests.
        body: What the model is to be sent: all but the gateway's own parameters.
    """

    model: str
    messages: list[dict[str, Any]]
    streams: bool
    includes_usage: bool
    cache_key: str | None
    body: dict[str, Any]

    @property
    def before(self) -> list[dict[str, Any]]:
        """What was said before the newest words: up to what the model has said last."""
        at = len(self.messages)
        while at and self.messages[at - 1]["role"] != "assistant":
            at -= 1
        return self.messages[:at]


def read_chat(body: bytes) -> Chat:
    """A request.

    Raises:
        Invalid: It is none, or asks for what no route can do.
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
    """See that a request asks for nothing that a model can't do which takes words.

    Raises:
        Invalid: It does.
    """
    text = "This route's model takes text only, and does not support this."
    for name, value in chat.body.items():
        if name not in _WORDS and value not in _NEUTRAL.get(name, ()):
            raise unsupported(name, text)
    if chat.includes_usage:
        text = "This route's model does not report its usage."
        raise unsupported("stream_options.include_usage", text)


def newest_words(chat: Chat) -> str:
    """What the user has said since the model has said something.

    Raises:
        Invalid: It is not words, or there is nothing.
    """
    at = len(chat.before)
    newest = [_words_at(chat, number) for number in range(at, len(chat.messages))]
    if not newest:
        raise Invalid("The last message must be the user's.", "messages")
    return "\n\n".join(newest)


def words_before(chat: Chat) -> tuple[Words, ...]:
    """What was said before that, in turns.

    Raises:
        Invalid: It is not words.
    """
    return in_turns(
        ("assistant" if message["role"] == "assistant" else "user", _words_at(chat, number))
        for number, message in enumerate(chat.before)
    )


def _words_at(chat: Chat, number: int) -> str:
    """The words of a user's or the model's message."""
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
    """Content as text; None where it is something else."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = list[str]()
    for part in content if isinstance(content, list) else [None]:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
        if not isinstance(text, str):
            return None
        parts.append(text)
    return "".join(parts)


# What was said, by its digest


def digest_of(owner: str, model: str, messages: Sequence[Message]) -> str:
    """What tells a conversation apart from others, whoever's client writes it down how.

    Args:
        owner: Whose it is.
        model: The route.
        messages: All of it.
    """
    return _digest(owner, model, [_canonical(message) for message in messages])


def alias_of(owner: str, model: str, name: str) -> str:
    """The same for a conversation whose client has a name for it."""
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
        arguments = msgspec.json.decode(arguments or "{}")  # which some clients write anew
    return [call.get("id"), function.get("name"), arguments]
