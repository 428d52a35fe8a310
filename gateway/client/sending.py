"""A message of the user's, as the protocol has it."""

from typing import Any, TypedDict

import msgspec
from msgspec import UNSET, Raw, structs

from gateway.protocol.codecs import ProtocolError, check_texts
from gateway.protocol.messages import MessageSend

Body = str | bytes | bytearray | memoryview | dict[str, Any] | list[Any]


class Options(TypedDict, total=False):
    """Options of a message: whether to stream the reply, and the options of InvokeEndpoint.

    The last six can be set only if the route allows that.
    """

    stream: bool
    content_type: str
    accept: str
    custom_attributes: str
    inference_id: str
    target_model: str
    target_variant: str
    target_container_hostname: str
    enable_explanations: str
    inference_component_name: str


def message_of(body: Body | None, json: Any, message_id: str, options: Options) -> MessageSend:
    """The message with this one body: ``body``, or ``json`` unless that is `UNSET`.

    Raises:
        TypeError: There is not exactly one, or it is of no type that can be sent.
        ValueError: An argument is no part of a message.
    """
    if (body is None) == (json is UNSET):
        raise TypeError("send needs either a body or json=")
    try:
        message = msgspec.convert(
            {"type": "message.send", "id": message_id, **options}, MessageSend
        )
        check_texts(message)
    except (msgspec.ValidationError, ProtocolError) as error:
        raise ValueError(str(error)) from None
    match body:
        case str():
            return structs.replace(message, text=body)
        case bytes() | bytearray() | memoryview():
            return structs.replace(message, data=bytes(body))
        case None:
            return structs.replace(message, json=Raw(msgspec.json.encode(json)))
        case dict() | list():
            return structs.replace(message, json=Raw(msgspec.json.encode(body)))
        case _:
            raise TypeError(
                f"a message is text, bytes, a dict or a list, not {type(body).__name__}; "
                "send any other JSON value with json="
            )
