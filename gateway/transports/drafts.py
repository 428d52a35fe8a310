"""A message as a request has it, and its reply as a response: bodies as they are, on both ways."""

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
"""In which header a request has each option of its call, but for the body's content type."""

REPLY_HEADERS = {
    "X-Invoked-Production-Variant": "invoked_production_variant",
    "X-Custom-Attributes": "custom_attributes",
    "X-Dropped-Turns": "dropped_turns",
    "X-Duration-Ms": "duration_ms",
}
"""What responses say of a reply beside its body, and where that is in ``message.done``."""

_OPTIONS = {header.lower().encode(): name for header, name in OPTION_HEADERS.items()}
_REPLY = [header.lower().encode() for header in REPLY_HEADERS]
_said_of = attrgetter(*REPLY_HEADERS.values())

NOT_STORED = {"Cache-Control": "no-store"}
"""For responses that are nobody else's."""


def json_of(content: msgspec.Struct, status: int = 200, **headers: str) -> Response:
    """A response that nobody keeps."""
    body, headers = msgspec.json.encode(content), {**NOT_STORED, **headers}
    return Response(body, status, headers, media_type=JSON)


_HEADERS = {**OPTION_HEADERS, "Idempotency-Key": "id", "Content-Type": "content_type"}


class Draft:
    """A message as a request has it: it becomes one when its route is known.

    Args:
        request: The request.
        body: Its body.
        name: What it is called where the client gives it no id.

    Attributes:
        is_named: Whether the client has given it its id.
        message_id: That, or one that is made for it.
        streams: Whether the reply is wanted in parts.
    """

    __slots__ = ("_body", "_said", "_type", "is_named", "message_id", "streams")

    def __init__(self, request: ApiRequest, body: bytes, name: str) -> None:
        headers = request.named
        key = headers.get(b"idempotency-key")
        self.is_named = key is not None
        # The header's draft makes it a string in quotes, which many leave out.
        self.message_id = name if key is None else _text(key).strip('"')
        self.streams = sse.MEDIA_TYPE in _text(headers.get(b"accept", b"")).lower()
        self._body = body
        self._type = _text(headers.get(b"content-type", b""))
        given = _OPTIONS.keys() & headers.keys()
        self._said = {_OPTIONS[header]: _text(headers[header]) for header in given}

    def message(self, route: Route) -> MessageSend:
        """The message.

        Raises:
            Refused: It is none.
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
            if is_text:  # which the route makes the model's request of
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
    """A request's body.

    Raises:
        Refused: It is larger than any may be.
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
    """The body of a reply in one piece; None where it has come in parts, or there is none."""
    if done.text is not UNSET:
        return done.text
    if done.json is not UNSET:
        return bytes(done.json)
    return None if done.base64 is UNSET else done.base64


def reply_of(done: MessageDone, message_id: str, parts: Sequence[MessageDelta]) -> Response:
    """The end of a turn: the reply's body as it came, or why there is none.

    Args:
        done: The end.
        message_id: Of the message.
        parts: What came before, of a reply that was wanted in parts when it was asked for first.
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
    """A body as it is, with headers as they are."""

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]


def _body_of(part: MessageDelta) -> bytes:
    if part.text is not UNSET:
        return part.text.encode()
    return b"" if part.base64 is UNSET else part.base64
