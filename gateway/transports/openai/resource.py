"""Responses in the format that clients get: the objects of Open Responses, version 2026-04-24."""

import math
from typing import Any, Literal

from msgspec import UNSET, UnsetType, field, structs

from gateway.protocol.discretion import Discreet
from gateway.transports.openai.items import Item
from gateway.transports.openai.requests import (
    AllowedTools,
    CreateResponse,
    FunctionTool,
    JsonObject,
    JsonSchema,
    NamedFunction,
    PlainText,
)

State = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]


class ResponseError(Discreet, frozen=True, kw_only=True):
    """Why a response has failed."""

    code: str
    message: str


class Incomplete(Discreet, frozen=True, kw_only=True):
    """Why a response is incomplete."""

    reason: str


class TextConfig(Discreet, frozen=True, kw_only=True):
    """Requested format of the answer."""

    format: PlainText | JsonObject | JsonSchema = field(default_factory=PlainText)


class ReasoningConfig(Discreet, frozen=True, kw_only=True):
    """How much the model was asked to reason."""

    effort: str | None = None
    summary: str | None = None


class ConversationOf(Discreet, frozen=True, kw_only=True):
    """The conversation that a response belongs to."""

    id: str


class CachedTokens(Discreet, frozen=True, kw_only=True):
    """Details of input tokens: how many of them were cached."""

    cached_tokens: int = 0


class ReasoningTokens(Discreet, frozen=True, kw_only=True):
    """Details of output tokens: how many of them are reasoning."""

    reasoning_tokens: int = 0


class Usage(Discreet, frozen=True, kw_only=True):
    """Number of tokens in the input and output, as reported by the model."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens_details: ReasoningTokens = ReasoningTokens()


class Response(Discreet, frozen=True, kw_only=True):
    """A response. Times are in whole seconds since the epoch."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: State
    incomplete_details: Incomplete | None = None
    model: str
    previous_response_id: str | None = None
    conversation: ConversationOf | UnsetType = UNSET
    instructions: str | None = None
    output: list[Item] = field(default_factory=list)
    error: ResponseError | None = None
    tools: list[FunctionTool] = field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools = "auto"
    truncation: Literal["auto", "disabled"] = "disabled"
    parallel_tool_calls: bool = True
    text: TextConfig = field(default_factory=TextConfig)
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0
    temperature: float = 1.0
    reasoning: ReasoningConfig | None = None
    usage: Usage | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    store: bool = True
    background: bool = False
    service_tier: str = "default"
    metadata: dict[str, str] = field(default_factory=dict)
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def __repr__(self) -> str:
        """Omit the response's id, which is a secret."""
        return f"<Response {self.status}>"

    @property
    def is_over(self) -> bool:
        """Whether the response has ended."""
        return self.status not in {"queued", "in_progress"}


def response_of(
    request: CreateResponse, response_id: str, created_at: float, *, whole: bool
) -> Response:
    """Return the response to a request as it is when the request is accepted.

    Parameters that the request leaves to the model's defaults have OpenAI's defaults here, because
    the specification requires numbers.

    Args:
        request: The request.
        response_id: Id of the response.
        created_at: Time of the request, in seconds since the epoch.
        whole: Whether the model always gets the whole history, however long it is.
    """
    conversation, reasoning = request.conversation_id, request.reasoning
    given: dict[str, Any] = {
        name: value for name in _ECHOED if (value := getattr(request, name)) is not None
    }
    return Response(
        id=response_id,
        created_at=math.floor(created_at),
        status="in_progress",
        truncation=request.truncation or ("disabled" if whole else "auto"),
        conversation=UNSET if conversation is None else ConversationOf(id=conversation),
        text=TextConfig(format=_format_of(request)),
        reasoning=None
        if reasoning is None
        else ReasoningConfig(effort=reasoning.effort, summary=reasoning.summary),
        **given,
    )


_ECHOED = (
    "model",
    "previous_response_id",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
)


def _format_of(request: CreateResponse) -> PlainText | JsonObject | JsonSchema:
    wanted = request.text.format if request.text is not None else None
    if isinstance(wanted, JsonSchema):
        if wanted.schema is None:
            return JsonObject()
        return structs.replace(wanted, strict=bool(wanted.strict))
    return wanted or PlainText()
