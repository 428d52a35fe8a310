"""What the model of a chat route is sent: a whole chat, as OpenAI's API has it."""

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
    """The message that carries a chat, and wants the model's own chunks or completion back.

    Args:
        message_id: Its id.
        policy: Of a route with `Policy.chat`.
        request: ``messages`` and whatever else the model is to be told, such as ``tools``. The
            route's own ``request`` says what is sent where this says nothing; its ``model`` is the
            container's name for one, which no client knows.
        stream: Whether the reply is wanted in chunks.

    Raises:
        Invalid: The first message is none.
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
    """Messages after what the operator has the model told: many models' templates take one system
    message and no more, so that what the client has for it follows in the same.
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
