"""From a client's message to the model's request, and from its reply to what a client is sent."""

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
"""Of the fields of a message, which begin with the options."""
_NO_OPTIONS = (UNSET,) * _COUNT

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BINARY = "application/octet-stream"

_UNNAMED = frozenset({None, BINARY, "binary/octet-stream"})  # the last one is that of S3


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
    """A message's own body, and the content type that is its by nature."""
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
    """The model's request; its content type is the message's, else the route's, else the body's.

    Where the route has a template for text, the body is empty: what it is made of is known only
    when the turn begins.

    Args:
        message: The client's.
        policy: The route's rules.
        options: Its own, see `options_of`; a request has the same under the same names.
        body: Its own body; see `body_of`.
        kind: The content type that is that body's by nature.
        sha256: That body's digest.
    """
    stream = policy.streams and message.stream is not False
    if message.text is not UNSET and policy.template is not None:
        body, kind, sha256 = b"", JSON, None
    given: dict[str, Any] = {"content_type": policy.content_type or kind, **options}
    verbatim = message.verbatim is True
    return ModelRequest(body=body, sha256=sha256, stream=stream, verbatim=verbatim, **given)


def refused_field(options: Iterable[str], policy: Policy) -> str | None:
    """An option that the route does not let clients set, if there is one."""
    for name in options:
        if name in RESTRICTED and name not in policy.client_fields:
            return name
    return None


def reply_fields(reply: ModelReply, policy: Policy) -> ReplyFields:
    """A reply as ``message.done`` carries it.

    The body is ``json`` where the route asks for that and it parses, else ``text`` where its
    content type is textual and it is UTF-8, else Base64. Where the gateway keeps the conversation,
    it is text as well that has the content type of what nobody has named.
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
    """The same object for equal strings: thousands of events with the same few are kept."""
    return text


def _parses(body: bytes) -> bool:
    try:
        if not body.isascii():
            body.decode()  # the parser passes over strings without looking at their encoding
        msgspec.json.decode(body, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
