"""Frames to messages and back: JSON in text frames, MessagePack in binary ones.

Whatever bytes come in, only `ProtocolError` comes out: its text names the field and is meant for
the client.
"""

import binascii
import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Raw, structs

from gateway.protocol.messages import (
    MESSAGE_ID,
    ClientMessage,
    MessageDelta,
    MessageDone,
    MessageSend,
    ServerMessage,
)

Frame = str | bytes

SUBPROTOCOL_JSON = "v1.json.session-gateway"
SUBPROTOCOL_MSGPACK = "v1.msgpack.session-gateway"

_BODIES = "exactly one of `text`, `json`, `base64`"
# What msgspec raises for input that is not a message: wrong syntax or types, text that is not
# UTF-8, nesting deeper than the interpreter's recursion limit.
_BAD_INPUT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ProtocolError(Exception):
    """A frame is not a message of the protocol.

    Attributes:
        message_type: The type that it claims to be, where it is an object that claims any.
        message_id: The message id that it has, where that is one.
    """

    def __init__(self, text: str, claim: "_Claim | MessageSend | None" = None) -> None:
        super().__init__(text)
        self.message_type = claim.type if isinstance(claim, _Claim) else None
        message_id = None if claim is None else claim.id
        good = isinstance(message_id, str) and re.fullmatch(MESSAGE_ID, message_id)
        self.message_id: str | None = message_id if good else None


class _Claim(msgspec.Struct):
    type: str
    id: Any = None


class Codec(Protocol):
    """One subprotocol's way between frames and messages.

    Attributes:
        text: Whether its frames are text frames.
    """

    @property
    def text(self) -> bool: ...

    def decode(self, frame: Frame) -> ClientMessage:
        """The message in a frame.

        Raises:
            ProtocolError: There is none.
        """
        ...

    def encode(self, message: ServerMessage) -> bytes:
        """The payload of the frame for a message."""
        ...


def _explain(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "a string is not UTF-8"
    return str(error)


def _claimed(decode: Callable[..., _Claim], frame: Frame) -> _Claim | None:
    try:
        return decode(frame, type=_Claim)
    except _BAD_INPUT:
        return None


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
        except _BAD_INPUT as error:
            claim = _claimed(msgspec.json.decode, frame)
            raise ProtocolError(_explain(error), claim) from None
        if not isinstance(message, MessageSend):
            return message
        if message.data is not UNSET:
            raise ProtocolError(
                "`bytes` is for MessagePack only, send `base64` - at `$.bytes`", message
            )
        return _one_body(message, _BODIES)

    def encode(self, message: ServerMessage) -> bytes:
        """See `Codec.encode`."""
        return self._encoder.encode(message)


class MsgpackCodec:
    """``v1.msgpack.session-gateway``: the same messages, but binary bodies as they stand."""

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
        except _BAD_INPUT as error:
            claim = _claimed(msgspec.msgpack.decode, frame)
            raise ProtocolError(_explain(error), claim) from None
        if not isinstance(message, MessageSend):
            return message
        message = _one_body(message, f"{_BODIES}, `bytes`")
        if message.json is not UNSET:
            return structs.replace(message, json=Raw(_json_of(message.json, message)))
        return message

    def encode(self, message: ServerMessage) -> bytes:
        """See `Codec.encode`."""
        if isinstance(message, MessageDelta) and message.base64 is not UNSET:
            message = structs.replace(message, base64=UNSET, data=message.base64)
        elif isinstance(message, MessageDone):
            if message.base64 is not UNSET:
                message = structs.replace(message, base64=UNSET, data=message.base64)
            elif message.json is not UNSET:
                message = self._repacked(message, bytes(message.json))
        return self._encoder.encode(message)

    def _repacked(self, message: MessageDone, body: bytes) -> MessageDone:
        """The message with its JSON as MessagePack, or as text where that can't hold it."""
        try:
            packed = self._encoder.encode(msgspec.json.decode(body))
        except (msgspec.DecodeError, OverflowError, RecursionError):
            return structs.replace(message, json=UNSET, text=body.decode())
        return structs.replace(message, json=Raw(packed))


def _one_body(message: MessageSend, names: str) -> MessageSend:
    """The message with its only body, decoded where it came as Base64."""
    if (
        (message.text is UNSET)
        + (message.json is UNSET)
        + (message.base64 is UNSET)
        + (message.data is UNSET)
    ) != 3:
        raise ProtocolError(f"Object needs {names}", message)
    if message.base64 is UNSET:
        return message
    try:
        data = binascii.a2b_base64(message.base64, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is a string that is not ASCII
        raise ProtocolError("Invalid base64 encoded string - at `$.base64`", message) from None
    return structs.replace(message, base64=UNSET, data=data)


def _json_of(packed: Raw, message: MessageSend) -> bytes:
    """JSON for a MessagePack value; maps may have string keys only, and nothing may be binary."""
    try:
        return msgspec.json.encode(_plain(msgspec.msgpack.decode(packed)))
    except (*_BAD_INPUT, TypeError, ValueError) as error:
        reason = _explain(error) if isinstance(error, _BAD_INPUT) else "it has no JSON form"
        raise ProtocolError(f"{reason} - at `$.json`", message) from None


def _plain(value: Any) -> Any:
    """The value itself, where it is made of nothing but JSON's own types.

    msgspec would give ``bytes`` as Base64, and numbers as the strings that they are as keys; the
    model would then get something else than the client sent.
    """
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        for item in value.values():
            _plain(item)
    elif isinstance(value, list):
        for item in value:
            _plain(item)
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise TypeError
    elif isinstance(value, float) and value - value != 0:  # an infinity or not a number
        raise ValueError
    return value
