"""Parses the bodies of requests strictly: unsupported parameters are refused, not ignored.

Parameters that are accepted without effect have none at OpenAI either, or ask for what the gateway
does anyway.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from gateway.protocol.discretion import Discreet
from gateway.protocol.structure import may_be_built
from gateway.transports.openai.errors import Invalid, unsupported
from gateway.transports.openai.items import FunctionName, Item

T = TypeVar("T")

Metadata = Annotated[
    dict[
        Annotated[str, Meta(max_length=64)],
        Annotated[str, Meta(max_length=512)],
    ],
    Meta(max_length=16),
]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Label = Annotated[str, Meta(max_length=256)]

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`$")


class _Strict(Discreet, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of requests and their parts."""


class FunctionTool(_Strict, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A function that the client provides; ``parameters`` is a JSON Schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(_Strict, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A reference to one of the tools."""

    name: FunctionName


class AllowedTools(_Strict, frozen=True, kw_only=True, tag_field="type", tag="allowed_tools"):
    """A subset of the tools."""

    tools: Annotated[list[NamedFunction], Meta(min_length=1, max_length=128)]
    mode: Literal["none", "auto", "required"] = "auto"


class PlainText(_Strict, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Text in any format."""


class JsonObject(_Strict, frozen=True, kw_only=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(_Strict, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    """JSON that conforms to a schema; any JSON object if the schema is missing."""

    name: str = "response"
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(_Strict, frozen=True, kw_only=True):
    """Format of the answer."""

    format: PlainText | JsonObject | JsonSchema | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(_Strict, frozen=True, kw_only=True):
    """How much the model should reason."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(_Strict, frozen=True, kw_only=True):
    """Format of events."""

    include_obfuscation: bool | None = None


class ConversationRef(_Strict, frozen=True, kw_only=True):
    """A reference to a conversation."""

    id: str


class CreateResponse(_Strict, frozen=True, kw_only=True):
    """The body of ``POST /responses``, and of ``response.create`` over a WebSocket."""

    model: str
    input: str | list[Item] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    metadata: Metadata | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    user: Label | None = None

    @property
    def conversation_id(self) -> str | None:
        """Id of the conversation that it belongs to, if any."""
        given = self.conversation
        return given.id if isinstance(given, ConversationRef) else given

    @property
    def wants_logprobs(self) -> bool:
        """Whether to include the log probabilities of tokens."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)


class CreateOverWebSocket(CreateResponse, frozen=True, kw_only=True):
    """A message over a WebSocket, with the parameters of `CreateResponse`.

    ``generate: false`` only opens the session and adds the input to the history, without a turn.
    """

    type: Literal["response.create"]
    generate: bool | None = None


class CreateConversation(_Strict, frozen=True, kw_only=True):
    """The body of ``POST /conversations``."""

    items: Annotated[list[Item], Meta(max_length=20)] | None = None
    metadata: Metadata | None = None


class UpdateConversation(_Strict, frozen=True, kw_only=True):
    """The body of ``POST /conversations/{conversation_id}``."""

    metadata: Metadata


class CreateItems(_Strict, frozen=True, kw_only=True):
    """The body of ``POST /conversations/{conversation_id}/items``."""

    items: Annotated[list[Item], Meta(min_length=1, max_length=20)]


LOGPROBS = "message.output_text.logprobs"
INCLUDED = frozenset({LOGPROBS, "message.input_image.image_url", "reasoning.encrypted_content"})
"""Values of ``include``. Images are always included, and so is reasoning, which isn't encrypted."""

_CHAT_ONLY = (
    "instructions",
    "tools",
    "max_output_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "reasoning",
)
"""Parameters that only chat models support."""


def parse(body: bytes | str, kind: type[T]) -> T:
    """Parse the body of a request.

    Raises:
        Invalid: It is malformed.
    """
    value = value_of(body)
    if isinstance(value, dict):
        for name in ("input", "items"):
            if isinstance(value.get(name), list):
                value[name] = [_with_type(item) for item in value[name]]
    return converted(value, kind)


def value_of(body: bytes | str) -> Any:
    """Decode the JSON of a body.

    Raises:
        Invalid: It is malformed, or has too many values.
    """
    data = body.encode() if isinstance(body, str) else body
    if not may_be_built(data):
        raise Invalid("The request has too many values.", code="too_large", status=413)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("The body is not valid JSON in UTF-8.", code="invalid_json") from None


def converted(value: Any, kind: type[T]) -> T:
    """Convert decoded JSON to a type of request, or of a part of one.

    Raises:
        Invalid: It does not conform to the type.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _invalid(str(error)) from None


def _with_type(item: Any) -> Any:
    """Add the type to a message, which may omit it."""
    if isinstance(item, dict) and "role" in item and "type" not in item:
        return {"type": "message", **item}
    return item


def _invalid(error: str) -> Invalid:
    """Convert the text of an error of msgspec's to OpenAI's format."""
    place = _PLACE.search(error)
    text, at = (error[: place.start()], place[1]) if place else (error, "")
    if found := _UNKNOWN.search(text):
        param = f"{at}.{found[1]}" if at else found[1]
        return Invalid(f"Unknown parameter: '{param}'.", param, code="unknown_parameter")
    if found := _MISSING.search(text):
        param = f"{at}.{found[1]}" if at else found[1]
        return Invalid(
            f"Missing required parameter: '{param}'.", param, code="missing_required_parameter"
        )
    if at.endswith(".type") and text.startswith("Invalid value"):
        return unsupported(at, f"'{at}': {text}; this type is not supported.")
    return Invalid(f"'{at}': {text}." if at else f"{text}.", at or None)


def check(request: CreateResponse, *, chat: bool, whole: bool) -> None:
    """Check that a route supports all parameters of a request.

    Args:
        request: The request.
        chat: Whether the route's model is a chat model, rather than a text model.
        whole: Whether the model always gets the whole history, however long it is.

    Raises:
        Invalid: A parameter is not supported.
    """
    _check_everywhere(request)
    if not chat:
        _check_words(request, whole=whole)


def _check_everywhere(request: CreateResponse) -> None:
    if request.previous_response_id is not None and request.conversation is not None:
        text = "Use either `previous_response_id` or `conversation`, not both."
        raise Invalid(text, "previous_response_id", code="mutually_exclusive_parameters")
    if request.background and request.store is False:
        raise Invalid("A response in the background must be stored.", "background")
    for name in request.include or ():
        if name not in INCLUDED:
            raise unsupported("include", f"'{name[:64]}' is not supported here.")
    if request.text is not None and request.text.verbosity in {"low", "high"}:
        raise unsupported("text.verbosity", "Only the verbosity 'medium' is supported.")
    if request.reasoning is not None and request.reasoning.summary in {"concise", "detailed"}:
        text = "Summaries of reasoning are not supported; reasoning is returned as it is."
        raise unsupported("reasoning.summary", text)
    options = request.stream_options
    if options is not None and options.include_obfuscation:
        text = "Obfuscation is not supported."
        raise unsupported("stream_options.include_obfuscation", text)
    names = {tool.name for tool in request.tools or ()}
    chosen = request.tool_choice
    wanted = (
        [chosen]
        if isinstance(chosen, NamedFunction)
        else chosen.tools
        if isinstance(chosen, AllowedTools)
        else []
    )
    if not names.issuperset(tool.name for tool in wanted):
        raise Invalid("This is not one of the tools.", "tool_choice")


def _check_words(request: CreateResponse, *, whole: bool) -> None:
    text = "This route's model takes text only, and does not support this."
    for name in _CHAT_ONLY:
        if getattr(request, name):
            raise unsupported(name, text)
    if request.tool_choice not in {None, "auto", "none"}:
        raise unsupported("tool_choice", text)
    if request.text is not None and not isinstance(request.text.format, PlainText | None):
        raise unsupported("text.format", text)
    if request.wants_logprobs:
        raise unsupported("include", text)
    if request.truncation == "disabled" and not whole:
        why = "This route drops the oldest turns of a conversation that is too long."
        raise unsupported("truncation", why)
