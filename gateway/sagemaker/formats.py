"""What a model's bodies look like, as data, for the kinds of containers that are in use.

Sources: LMI's input and output schema and its output formatters, OpenAI's chat completions as
vLLM and LMI serve them, TGI's API. A route may name one of `FORMATS` or spell out its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.sagemaker.streams import StreamKind, Text


class Format(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model takes and gives.

    Attributes:
        stream: How it writes a streamed reply.
        text: A JMESPath expression for where the text is, in a stream's events and in a reply in
            one piece alike; None where the reply is to be passed on as it is.
        request: A JSON value to put a client's text into: a string that is ``$text`` becomes the
            text, ``$text`` inside a longer string is replaced, and a string that is ``$stream``
            becomes true or false. None where a client's body is the model's.
        accept: Asked of the model where neither the client nor the route does.
    """

    stream: StreamKind = StreamKind.OFF
    text: str | None = None
    request: Any = None
    accept: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be; msgspec reports a ValueError as its own."""
        if self.text is None:
            return
        if self.stream is StreamKind.RAW:
            raise ValueError('`stream = "raw"` has no events to take `text` from')
        try:
            Text(self.text)
        except ValueError as error:
            raise ValueError(f"`text` is {error}") from None


_PARAMETERS = {"max_new_tokens": 512}

# The last event of a stream has the whole text once more, beside its own token.
_GENERATED = "(!token && (generated_text || [0].generated_text))"

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "openai-chat": Format(
            stream=StreamKind.SSE,
            text="choices[0].delta.content || choices[0].message.content",
            request={"messages": [{"role": "user", "content": "$text"}], "stream": "$stream"},
        ),
        "lmi": Format(
            stream=StreamKind.LINES,
            text=f"token.text || {_GENERATED}",
            request={"inputs": "$text", "parameters": _PARAMETERS, "stream": "$stream"},
        ),
        "tgi": Format(
            stream=StreamKind.SSE,
            text=f"([token][?!special].text | [0]) || {_GENERATED}",
            request={"inputs": "$text", "parameters": _PARAMETERS, "stream": "$stream"},
        ),
        "plain": Format(stream=StreamKind.RAW),
    }
)
"""The formats by name."""
