"""Composes requests for chat models: whole conversations, in the format of OpenAI's API."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from gateway.formats.templates import placeholders
from gateway.protocol.messages import MessageSend
from gateway.session.policy import Policy
from gateway.transports.openai.errors import Invalid

_SYSTEM = {"system", "developer"}


def chat_message(
    message_id: str, policy: Policy, request: Mapping[str, Any], *, stream: bool
) -> MessageSend:
    """Return a message with a chat request, whose reply is the model's own chunks or completion.

    Args:
        message_id: Id of the message.
        policy: Policy of a route with `Policy.chat`.
        request: ``messages`` and any other parameters for the model, such as ``tools``. Defaults
            for those that are missing are in the route's ``request``, whose ``model`` is always
            used: it is the container's name of a model, which clients don't know.
        stream: Whether to request chunks.

    Raises:
        Invalid: The content of the first message is malformed.
    """
    stream = stream and policy.streams
    given = {name: value for name, value in request.items() if name != "model"}
    defaults = {name: value for name, value in policy.template.items() if not placeholders(value)}
    if "max_completion_tokens" in given:
        defaults.pop("max_tokens", None)
    messages = _with_system(policy.system, given["messages"])
    body = {**defaults, **given, "messages": messages, "stream": stream}
    return MessageSend(
        id=message_id, json=Raw(msgspec.json.encode(body)), stream=stream, verbatim=True
    )


def _with_system(system: str | None, messages: Sequence[Any]) -> Sequence[Any]:
    """Prepend the route's system message. A system message of the client's is appended to it,
    because the templates of many models accept only one.
    """
    if system is None:
        return messages
    first = messages[0] if messages else {}
    own: list[dict[str, Any]] | str = system
    if first.get("role") in _SYSTEM:
        said = first.get("content")
        if isinstance(said, str):
            own = f"{system}\n\n{said}"
        elif isinstance(said, list):
            own = [{"type": "text", "text": system}, *said]
        elif said is not None:
            raise Invalid("Expected text or a list of parts.", "messages[0].content")
        messages = messages[1:]
    return [{"role": "system", "content": own}, *messages]
