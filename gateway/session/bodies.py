"""Conversion of client messages to model requests, and of model replies to client messages."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypedDict

import msgspec
from msgspec import UNSET, Raw, structs

from gateway.protocol.messages import MessageSend
from gateway.protocol.options import OPTIONS, RESTRICTED
from gateway.session.policy import Policy
from gateway.session.ports import ModelReply, ModelRequest

_COUNT = len(OPTIONS)
"""How many of a message's fields are options; they come first."""
_NO_OPTIONS = (UNSET,) * _COUNT

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BINARY = "application/octet-stream"

_UNNAMED = frozenset({None, BINARY, "binary/octet-stream"})  # the last one is S3's default


class ReplyFields(TypedDict, total=False):
    """The fields of ``message.done`` that carry a reply."""

    text: str
    json: Raw
    base64: bytes
    content_type: str
    invoked_production_variant: str
    custom_attributes: str


@lru_cache(maxsize=256)
def is_json(content_type: str | None) -> bool:
    """Whether a body of this type is JSON: ``application/json`` or ``*+json``."""
    essence = (content_type or "").partition(";")[0].strip().lower()
    return essence == JSON or essence.endswith("+json")


@lru_cache(maxsize=256)
def is_textual(content_type: str | None) -> bool:
    """Whether a body of this type is text: ``text/*`` or JSON."""
    return (content_type or "").lstrip()[:5].lower() == "text/" or is_json(content_type)


def body_of(message: MessageSend) -> tuple[bytes, str]:
    """A message's body, and the default content type of its kind."""
    if message.text is not UNSET:
        return message.text.encode(), TEXT
    if message.json is not UNSET:
        return bytes(message.json), JSON
    return message.data or b"", BINARY


def options_of(message: MessageSend) -> Mapping[str, str]:
    """The options that a message sets, by name."""
    options = structs.astuple(message)[:_COUNT]
    if options == _NO_OPTIONS:
        return {}
    named = zip(OPTIONS, options, strict=True)
    return {name: value for name, value in named if value is not UNSET}


def request_of(
    message: MessageSend,
    policy: Policy,
    *,
    options: Mapping[str, str],
    body: bytes,
    kind: str,
    sha256: bytes | None,
) -> ModelRequest:
    """Build the model's request.

    Its content type is the message's, else the route's, else the body's. If the route has a
    template for text, the body is empty: the template is filled when the turn begins.

    Args:
        message: The client's message.
        policy: The route's rules.
        options: The message's options; see `options_of`. A request has the same names.
        body: The message's body; see `body_of`.
        kind: The body's default content type.
        sha256: The body's digest.
    """
    stream = policy.streams and message.stream is not False
    if message.text is not UNSET and policy.template is not None:
        body, kind, sha256 = b"", JSON, None
    given: dict[str, Any] = {"content_type": policy.content_type or kind, **options}
    verbatim = message.verbatim is True
    return ModelRequest(body=body, sha256=sha256, stream=stream, verbatim=verbatim, **given)


def refused_field(options: Iterable[str], policy: Policy) -> str | None:
    """Return an option that the route does not let clients set, if the message sets one."""
    for name in options:
        if name in RESTRICTED and name not in policy.client_fields:
            return name
    return None


def reply_fields(reply: ModelReply, policy: Policy) -> ReplyFields:
    """Convert a reply to fields of ``message.done``.

    The body becomes ``json`` if the route asks for that and it parses, else ``text`` if its
    content type is textual and it is UTF-8, else Base64. If the gateway keeps the conversation, a
    body with no content type or a generic binary one is treated as text too.
    """
    fields = ReplyFields()
    if reply.body is None:
        pass
    elif policy.json_replies and _parses(reply.body):
        fields["json"] = Raw(reply.body)
    elif is_textual(reply.content_type) or (
        policy.sends_history and reply.content_type in _UNNAMED
    ):
        try:
            fields["text"] = reply.body.decode()
        except UnicodeDecodeError:
            fields["base64"] = reply.body
    else:
        fields["base64"] = reply.body
    if reply.content_type is not None:
        fields["content_type"] = _shared(reply.content_type)
    if reply.variant is not None:
        fields["invoked_production_variant"] = _shared(reply.variant)
    if reply.custom_attributes is not None:
        fields["custom_attributes"] = reply.custom_attributes
    return fields


@lru_cache(maxsize=256)
def _shared(text: str) -> str:
    """Return one object for equal strings: thousands of stored events share a few values."""
    return text


def _parses(body: bytes) -> bool:
    try:
        if not body.isascii():
            body.decode()  # the parser doesn't validate the encoding of strings that it skips
        msgspec.json.decode(body, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
