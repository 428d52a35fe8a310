"""Codecs between frames and messages: JSON in text frames, MessagePack in binary ones.

Decoding arbitrary bytes raises only `ProtocolError`, whose text is meant for the client and names
the field.
"""

import binascii
import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Raw, structs

from gateway.protocol.discretion import Discreet
from gateway.protocol.messages import (
    ClientMessage,
    MessageCancel,
    MessageDelta,
    MessageDone,
    MessageId,
    MessageSend,
    ServerMessage,
)
from gateway.protocol.options import OPTIONS
from gateway.protocol.structure import (
    MAX_VALUES,
    NoJsonForm,
    TooManyValues,
    check_packed,
    may_be_built,
)

Frame = str | bytes

SUBPROTOCOL_JSON = "v1.json.session-gateway"
SUBPROTOCOL_MSGPACK = "v1.msgpack.session-gateway"

MAX_ERROR_TEXT = 200
"""Maximum length of an error text for a client, since some errors quote from its frame."""

UNKNOWN_FIELD = "Object contains unknown field `{}`"
"""Error text for an unknown field, worded as msgspec's."""

_BODIES = "exactly one of `text`, `json`, `base64`"
_NO_OPTIONS = (UNSET,) * len(OPTIONS)
# Matches non-empty strings of visible ASCII: no spaces, no control characters.
_is_visible = re.compile("[!-~]+").fullmatch
# Exceptions of msgspec for invalid input: wrong syntax or types, text that is not UTF-8, nesting
# deeper than the interpreter's recursion limit.
BAD_INPUT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ProtocolError(Exception):
    """A frame is not a message of the protocol.

    Attributes:
        message_type: The type that it declares, if any.
        message_id: Its message id, if it has a valid one.
    """

    def __init__(
        self, text: str, *, message_type: str | None = None, message_id: str | None = None
    ) -> None:
        super().__init__(text)
        self.message_type = message_type
        self.message_id = message_id


class _Claim(Discreet, frozen=True):
    """The type and id of an invalid frame, decoded without building the rest of it."""

    type: str
    id: Raw = Raw()


class Codec(Protocol):
    """A subprotocol's conversion between frames and messages.

    Attributes:
        text: Whether its frames are text frames.
    """

    @property
    def text(self) -> bool: ...

    def decode(self, frame: Frame) -> ClientMessage:
        """Decode a frame.

        Raises:
            ProtocolError: It is not a valid message.
        """
        ...

    def encode(self, message: ServerMessage) -> bytes:
        """Encode a message as the payload of a frame."""
        ...


def explain(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "a string is not UTF-8"
    text = str(error)
    return text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}…"


def _refusal(decode: Callable[..., Any], frame: Frame, error: Exception) -> ProtocolError:
    """Build the error for an invalid frame."""
    text = explain(error)
    try:
        claim: _Claim = decode(frame, type=_Claim)
    except BAD_INPUT:
        return ProtocolError(text)
    try:
        message_id = decode(claim.id, type=MessageId)
    except BAD_INPUT:
        message_id = ""
    return ProtocolError(
        text, message_type=claim.type, message_id=message_id if _is_visible(message_id) else None
    )


class JsonCodec:
    """``v1.json.session-gateway``."""

    text = True

    def __init__(self) -> None:
        self._decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
        self._encoder = msgspec.json.Encoder()

    def decode(self, frame: Frame) -> ClientMessage:
        """See `Codec.decode`."""
        if not isinstance(frame, str):
            raise ProtocolError(f"{SUBPROTOCOL_JSON} takes text frames, this one is binary")
        try:
            message = self._decoder.decode(frame)
        except BAD_INPUT as error:
            raise _refusal(msgspec.json.decode, frame, error) from None
        if isinstance(message, MessageSend):
            if message.data is not UNSET:
                raise _wrong(message, "`bytes` is for MessagePack only, send `base64`", "bytes")
            return _checked(message, _BODIES)
        if isinstance(message, MessageCancel):
            _check_id(message)
        return message

    def encode(self, message: ServerMessage) -> bytes:
        """See `Codec.encode`."""
        return self._encoder.encode(message)


class MsgpackCodec:
    """``v1.msgpack.session-gateway``: the same messages, with binary bodies unencoded."""

    text = False

    def __init__(self) -> None:
        self._decoder: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(
            ClientMessage
        )
        self._encoder = msgspec.msgpack.Encoder()

    def decode(self, frame: Frame) -> ClientMessage:
        """See `Codec.decode`."""
        if not isinstance(frame, bytes):
            raise ProtocolError(f"{SUBPROTOCOL_MSGPACK} takes binary frames, this one is text")
        try:
            message = self._decoder.decode(frame)
        except BAD_INPUT as error:
            raise _refusal(msgspec.msgpack.decode, frame, error) from None
        if isinstance(message, MessageSend):
            message = _checked(message, f"{_BODIES}, `bytes`")
            if message.json is not UNSET:
                return structs.replace(message, json=Raw(_json_of(bytes(message.json), message)))
        elif isinstance(message, MessageCancel):
            _check_id(message)
        return message

    def encode(self, message: ServerMessage) -> bytes:
        """See `Codec.encode`."""
        if isinstance(message, MessageDelta) and message.base64 is not UNSET:
            message = structs.replace(message, base64=UNSET, data=message.base64)
        elif isinstance(message, MessageDone):
            if message.base64 is not UNSET:
                message = structs.replace(message, base64=UNSET, data=message.base64)
            elif message.json is not UNSET:
                message = self._repacked(message, memoryview(message.json))
        return self._encoder.encode(message)

    def _repacked(self, message: MessageDone, body: memoryview) -> MessageDone:
        """Convert a message's JSON to MessagePack, or to text if that is costly or impossible."""
        if not may_be_built(body):
            return structs.replace(message, json=UNSET, text=str(body, "utf-8"))
        try:
            packed = self._encoder.encode(msgspec.json.decode(body))
        except (msgspec.DecodeError, OverflowError, RecursionError):
            return structs.replace(message, json=UNSET, text=str(body, "utf-8"))
        return structs.replace(message, json=Raw(packed))


def _wrong(message: MessageSend | MessageCancel, what: str, field: str) -> ProtocolError:
    message_id = message.id if _is_visible(message.id) else None
    return ProtocolError(f"{what} - at `$.{field}`", message_id=message_id)


def _check_id(message: MessageSend | MessageCancel) -> None:
    if not _is_visible(message.id):
        raise _wrong(message, "Expected visible ASCII characters", "id")


def check_texts(message: MessageSend) -> None:
    """Check a message's id and options.

    Raises:
        ProtocolError: Its id is not visible ASCII, or an option is not printable ASCII.
    """
    _check_id(message)
    options = structs.astuple(message)[: len(OPTIONS)]
    if options != _NO_OPTIONS:
        given = {
            name: value for name, value in zip(OPTIONS, options, strict=True) if value is not UNSET
        }
        if not _is_printable("".join(given.values())):
            name = next(name for name, value in given.items() if not _is_printable(value))
            raise _wrong(message, "Expected printable ASCII characters", name)


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _checked(message: MessageSend, bodies: str) -> MessageSend:
    """Check that a message has exactly one body, and decode it from Base64."""
    check_texts(message)
    if message.verbatim is not UNSET:  # internal, not part of the protocol
        raise ProtocolError(UNKNOWN_FIELD.format("verbatim"), message_id=message.id)
    if (
        (message.text is UNSET)
        + (message.json is UNSET)
        + (message.base64 is UNSET)
        + (message.data is UNSET)
    ) != 3:
        raise ProtocolError(f"Object needs {bodies}", message_id=message.id)
    if message.base64 is UNSET:
        return message
    try:
        data = binascii.a2b_base64(message.base64, strict_mode=True)
    except ValueError:  # binascii.Error is a subclass; also raised for strings that are not ASCII
        raise _wrong(message, "Invalid base64 encoded string", "base64") from None
    return structs.replace(message, base64=UNSET, data=data)


def _json_of(packed: bytes, message: MessageSend) -> bytes:
    """Convert a MessagePack value to JSON.

    msgspec would convert ``bytes`` to Base64, and numbers as keys to strings, so that the model
    would get something else than the client has sent. Such a value is refused instead.
    """
    try:
        check_packed(packed)
        return msgspec.json.encode(msgspec.msgpack.decode(packed))
    except NoJsonForm:
        reason = "it has no JSON form"
    except TooManyValues:
        reason = f"more than {MAX_VALUES} values; send JSON as `bytes`, with its `content_type`"
    except BAD_INPUT as error:
        reason = explain(error)
    raise _wrong(message, reason, "json")
