"""Request and reply formats of common model containers, as data.

Sources: OpenAI's chat completions as vLLM, LMI (since 0.28) and TGI (since 2.4.1) accept them at
``/invocations`` without further settings, each choosing the schema by the body's keys; LMI's input
and output schema and its output formatters; TGI's API. A route may name one of `FORMATS`, or define
its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gateway.formats.streams import StreamKind
from gateway.formats.text import Text
from gateway.protocol.discretion import Discreet


class Format(Discreet, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The format of a model's requests and replies.

    Attributes:
        stream: Format of streamed replies.
        text: A JMESPath expression for the text, in events of a stream as well as in complete
            replies; None to pass replies on unchanged.
        request: A JSON template for a client's text: a string that is ``$text`` becomes the text,
            ``$messages`` the conversation as a list of ``{"role": …, "content": …}``,
            ``$transcript`` the same as text, and ``$stream`` true or false; inside a longer string
            each is replaced. None to pass clients' bodies on unchanged.
        accept: ``Accept`` of requests, unless the client or the route sets one.
    """

    stream: StreamKind = StreamKind.OFF
    text: str | None = None
    request: Any = None
    accept: str | None = None

    def __post_init__(self) -> None:
        """Validate; msgspec reports a ValueError as its own."""
        if self.text is None:
            return
        if self.stream is StreamKind.RAW:
            raise ValueError('`stream = "raw"` has no events to take `text` from')
        try:
            Text(self.text)
        except ValueError as error:
            raise ValueError(f"`text` is {error}") from None


# Of a stream's chunk, or of a complete reply.
_CHAT = "choices[0].delta.content || choices[0].message.content"
# For a route whose own `request` has `inputs`, to which LMI and TGI don't reply with a chat. The
# last event of a stream repeats the whole text beside its own token.
_GENERATED = "(!token && (generated_text || [0].generated_text))"

# By default, replies may fill the rest of the context, which can exceed SageMaker's 60 seconds.
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
"""The predefined formats by name."""
