"""The raw codec, without a protocol: a frame is a message's body, and a reply is a frame. For
devices and the simplest clients.
"""

from msgspec import UNSET

from gateway.errors import ERRORS
from gateway.protocol.codecs import Frame
from gateway.protocol.messages import ErrorMessage, MessageDone, MessageSend, ServerMessage
from gateway.session.bodies import is_textual
from gateway.transports.closing import CloseWith


class RawCodec:
    """Converts frames to messages, numbered in their order, and replies to frames."""

    text = False

    def __init__(self) -> None:
        self._count = 0

    def decode(self, frame: Frame) -> MessageSend:
        """Return a frame's message."""
        self._count += 1
        if isinstance(frame, str):
            return MessageSend(id=str(self._count), text=frame, stream=False)
        return MessageSend(id=str(self._count), data=frame, stream=False)

    def encode(self, message: ServerMessage) -> Frame | None:
        """Return a message's frame; None if it isn't a reply.

        Raises:
            CloseWith: The message is an error.
        """
        if isinstance(message, ErrorMessage):
            raise CloseWith(ERRORS[message.code].close, message.code.value)
        if not isinstance(message, MessageDone) or message.status == "cancelled":
            return None
        if message.error is not UNSET:
            raise CloseWith(ERRORS[message.error.code].close, message.error.code.value)
        if message.text is not UNSET:
            return message.text
        if message.json is not UNSET:
            body = bytes(message.json)
            return body.decode() if is_textual(message.content_type or None) else body
        return message.base64 or b""
