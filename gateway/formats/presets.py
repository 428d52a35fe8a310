"""What a model's bodies look like, as data, for the kinds of containers that are in use.

Sources: OpenAI's chat completions as vLLM, LMI (since 0.28) and TGI (since 2.4.1) take them at
``/invocations`` without further settings, each choosing the schema by the body's keys; LMI's input
and output schema and its output formatters; TGI's API. A route may name one of `FORMATS` or spell
out its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gateway.formats.streams import StreamKind
from gateway.formats.text import Text
from gateway.protocol.discretion import Discreet


class Format(Discreet, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model takes and gives.

    Attributes:
        stream: How it writes a streamed reply.
        text: A JMESPath expression for where the text is, in a stream's events and in a reply in
            one piece alike; None where the reply is to be passed on as it is.
        request: A JSON value to put a client's text into: a string that is ``$text`` becomes the
            text, ``$messages`` the conversation as a list of ``{"role": …, "content": …}``,
            ``$transcript`` the same as text, and ``$stream`` true or false; inside a longer string
            each is replaced. None where a client's body is the model's.
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


# A chunk of a stream, or a reply in one piece.
_CHAT = "choices[0].delta.content || choices[0].message.content"
# The same where a route's own `request` has `inputs`, of which LMI and TGI make no chat. The last
# event of a stream has the whole text once more, beside its own token.
_GENERATED = "(!token && (generated_text || [0].generated_text))"

# Left out, it is what is left of the context, which may not be made within SageMaker's 60 seconds.
_BOUNDED_CHAT = {"messages": "$messages", "max_tokens": 512, "stream": "$stream"}

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "openai-chat": Format(
            stream=StreamKind.SSE,
            text=_CHAT,
            request={"messages": "$messages", "stream": "$stream"},
        ),
        "lmi": Format(
            stream=StreamKind.LINES,
            text=f"{_CHAT} || token.text || {_GENERATED}",
            request=_BOUNDED_CHAT,
        ),
        "tgi": Format(
            stream=StreamKind.SSE,
            text=f"{_CHAT} || (!(token.special) && token.text) || {_GENERATED}",
            request=_BOUNDED_CHAT,
        ),
        "plain": Format(stream=StreamKind.RAW),
    }
)
"""The formats by name."""
