"""Converts requests to messages and replies to responses, with bodies unchanged in both ways."""

from collections.abc import Sequence
from operator import attrgetter

import msgspec
from msgspec import UNSET
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.admission import Refused
from gateway.errors import ErrorCode
from gateway.protocol.codecs import ProtocolError, check_texts
from gateway.protocol.messages import MessageDelta, MessageDone, MessageSend
from gateway.protocol.options import OPTIONS
from gateway.route import Route
from gateway.session.bodies import BINARY, JSON, TEXT
from gateway.transports import problems, sse
from gateway.transports.gate import ApiRequest

OPTION_HEADERS = {f"X-{name.title().replace('_', '-')}": name for name in OPTIONS[1:]}
"""Request headers and the call options that they set, except for the body's content type."""

REPLY_HEADERS = {
    "X-Invoked-Production-Variant": "invoked_production_variant",
    "X-Custom-Attributes": "custom_attributes",
    "X-Dropped-Turns": "dropped_turns",
    "X-Duration-Ms": "duration_ms",
}
"""Response headers that describe a reply, and the fields of ``message.done`` they come from."""

_OPTIONS = {header.lower().encode(): name for header, name in OPTION_HEADERS.items()}
_REPLY = [header.lower().encode() for header in REPLY_HEADERS]
_said_of = attrgetter(*REPLY_HEADERS.values())

NOT_STORED = {"Cache-Control": "no-store"}
"""Headers of responses that must not be cached."""


def json_of(content: msgspec.Struct, status: int = 200, **headers: str) -> Response:
    """Return a JSON response that must not be cached."""
    body, headers = msgspec.json.encode(content), {**NOT_STORED, **headers}
    return Response(body, status, headers, media_type=JSON)


_HEADERS = {**OPTION_HEADERS, "Idempotency-Key": "id", "Content-Type": "content_type"}


class Draft:
    """A request that becomes a message once its route is known.

    Args:
        request: The request.
        body: Its body.
        name: Id of the message if the client gives none.

    Attributes:
        is_named: Whether the client gave the message an id.
        message_id: The client's id, or a generated one.
        streams: Whether the client wants the reply in parts.
    """

    __slots__ = ("_body", "_said", "_type", "is_named", "message_id", "streams")

    def __init__(self, request: ApiRequest, body: bytes, name: str) -> None:
        headers = request.named
        key = headers.get(b"idempotency-key")
        self.is_named = key is not None
        # The header's draft standard makes it a quoted string, but many leave the quotes out.
        self.message_id = name if key is None else _text(key).strip('"')
        self.streams = sse.MEDIA_TYPE in _text(headers.get(b"accept", b"")).lower()
        self._body = body
        self._type = _text(headers.get(b"content-type", b""))
        given = _OPTIONS.keys() & headers.keys()
        self._said = {_OPTIONS[header]: _text(headers[header]) for header in given}

    def message(self, route: Route) -> MessageSend:
        """Create the message.

        Raises:
            Refused: The request is not a valid message.
        """
        policy, body = route.policy, self._body
        if len(body) > policy.message_bytes:
            raise _too_large(policy.message_bytes)
        said: dict[str, object] = {"id": self.message_id, "stream": self.streams, **self._said}
        kind = (self._type or "text/plain").partition(";")[0].strip().lower()
        is_text = policy.template is not None and kind == "text/plain"
        if self._type and not is_text:
            said["content_type"] = self._type
        try:
            if is_text:  # the route builds the model's request from it
                said["text"] = body.decode()
            else:
                said["bytes"] = body
            message = msgspec.convert(said, MessageSend)
            check_texts(message)
        except UnicodeDecodeError:
            raise Refused(ErrorCode.BAD_MESSAGE, "The body is not UTF-8 text.") from None
        except (msgspec.ValidationError, ProtocolError) as error:
            text = str(error)
            for header, name in _HEADERS.items():
                text = text.replace(f"`$.{name}`", header)
            raise Refused(ErrorCode.BAD_MESSAGE, text) from None
        return message


def _too_large(most: int) -> Refused:
    return Refused(ErrorCode.TOO_LARGE, f"The body is larger than {most} bytes.")


def _text(value: bytes) -> str:
    return value.decode("latin-1")


async def body_of(request: ApiRequest, most: int) -> bytes:
    """Read a request's body.

    Raises:
        Refused: It is larger than allowed.
    """
    length = request.named.get(b"content-length", b"")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def whole_of(done: MessageDone) -> str | bytes | None:
    """Return a reply's body; None if it came in parts, or if there is none."""
    if done.text is not UNSET:
        return done.text
    if done.json is not UNSET:
        return bytes(done.json)
    return None if done.base64 is UNSET else done.base64


def reply_of(done: MessageDone, message_id: str, parts: Sequence[MessageDelta]) -> Response:
    """Return the response for the end of a turn: the reply's body, or a problem.

    Args:
        done: End of the turn.
        message_id: Id of the message.
        parts: Parts received before, if the message first asked for a reply in parts.
    """
    if done.error is not UNSET:
        return problems.problem(done.error)
    if done.status == "cancelled":
        outcome = None if done.outcome is UNSET else done.outcome
        return problems.response(409, done.status, "The message was cancelled.", outcome=outcome)
    if done.json is not UNSET:
        body, kind = bytes(done.json), JSON
    elif done.text is not UNSET:
        body, kind = done.text.encode(), TEXT
    elif done.base64 is not UNSET:
        body, kind = done.base64, BINARY
    else:
        body, kind = b"".join(map(_body_of, parts)), BINARY
    if done.content_type is not UNSET:
        kind = done.content_type
    headers = [
        (b"cache-control", b"no-store"),
        (b"content-type", kind.encode("latin-1", "replace")),
        (b"idempotency-key", message_id.encode("latin-1")),
    ]
    for name, value in zip(_REPLY, _said_of(done), strict=True):
        if value is not UNSET:
            headers.append((name, str(value).encode("latin-1", "replace")))
    return _Reply(body, headers)


class _Reply(Response):
    """A response with headers that are already encoded."""

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]


def _body_of(part: MessageDelta) -> bytes:
    if part.text is not UNSET:
        return part.text.encode()
    return b"" if part.base64 is UNSET else part.base64
