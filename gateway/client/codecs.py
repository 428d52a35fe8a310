"""The client's side of the two subprotocols: messages to frames, and frames to messages."""

import base64
from collections.abc import Callable
from typing import Any, Protocol, get_args

import msgspec
from msgspec import UNSET, Raw, structs

from gateway.protocol.codecs import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, Frame, ProtocolError
from gateway.protocol.messages import (
    ClientMessage,
    MessageDelta,
    MessageDone,
    MessageSend,
    ServerMessage,
)

_KNOWN = frozenset(kind.__struct_config__.tag for kind in get_args(ServerMessage))


class UnknownMessage(msgspec.Struct):
    """A message of a later gateway, which this client can only count.

    Attributes:
        event: Its number; 0 where it is no event.
    """

    type: str
    event: int = 0


class ClientCodec(Protocol):
    """One subprotocol's way between messages and frames."""

    subprotocol: str

    def encode(self, message: ClientMessage) -> Frame:
        """The frame for a message; its ``json`` is JSON and its body ``bytes``, whatever the codec.

        Raises:
            ValueError: It can't be written, as text with half of a surrogate pair.
        """
        ...

    def decode(self, frame: Frame) -> ServerMessage | UnknownMessage:
        """The message in a frame.

        Raises:
            ProtocolError: There is none.
        """
        ...

    def body(self, message: MessageDelta | MessageDone) -> str | bytes | None:
        """What the model said: text, JSON as text, or bytes."""
        ...


class JsonClientCodec:
    """``v1.json.session-gateway``."""

    subprotocol = SUBPROTOCOL_JSON

    def __init__(self) -> None:
        self._decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
        self._encoder = msgspec.json.Encoder()

    def encode(self, message: ClientMessage) -> str:
        """See `ClientCodec.encode`."""
        if isinstance(message, MessageSend) and message.data is not UNSET:
            packed = base64.b64encode(message.data).decode()
            message = structs.replace(message, data=UNSET, base64=packed)
        return self._encoder.encode(message).decode()

    def decode(self, frame: Frame) -> ServerMessage | UnknownMessage:
        """See `ClientCodec.decode`."""
        if not isinstance(frame, str):
            raise ProtocolError("expected a text frame, not a binary one")
        return _decode(self._decoder.decode, msgspec.json.decode, frame)

    def body(self, message: MessageDelta | MessageDone) -> str | bytes | None:
        """See `ClientCodec.body`."""
        return _body(message, lambda raw: bytes(raw).decode())


class MsgpackClientCodec:
    """``v1.msgpack.session-gateway``: bytes travel as they are."""

    subprotocol = SUBPROTOCOL_MSGPACK

    def __init__(self) -> None:
        self._decoder: msgspec.msgpack.Decoder[ServerMessage] = msgspec.msgpack.Decoder(
            ServerMessage
        )
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, message: ClientMessage) -> bytes:
        """See `ClientCodec.encode`."""
        if isinstance(message, MessageSend) and message.json is not UNSET:
            packed = self._encoder.encode(msgspec.json.decode(message.json))
            message = structs.replace(message, json=Raw(packed))
        return self._encoder.encode(message)

    def decode(self, frame: Frame) -> ServerMessage | UnknownMessage:
        """See `ClientCodec.decode`."""
        if not isinstance(frame, bytes):
            raise ProtocolError("expected a binary frame, not a text one")
        return _decode(self._decoder.decode, msgspec.msgpack.decode, frame)

    def body(self, message: MessageDelta | MessageDone) -> str | bytes | None:
        """See `ClientCodec.body`."""
        return _body(message, lambda raw: msgspec.json.encode(msgspec.msgpack.decode(raw)).decode())


def _decode(
    decode: Callable[[Any], ServerMessage], untyped: Callable[..., UnknownMessage], frame: Frame
) -> ServerMessage | UnknownMessage:
    try:
        return decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            message = untyped(frame, type=UnknownMessage)
            if message.type not in _KNOWN:
                return message
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        raise ProtocolError(str(error)) from None


def _body(
    message: MessageDelta | MessageDone, json_text: Callable[[Raw], str]
) -> str | bytes | None:
    for body in (message.text, message.base64, message.data):
        if body is not UNSET:
            return body
    if isinstance(message, MessageDone) and message.json is not UNSET:
        return json_text(message.json)
    return None
