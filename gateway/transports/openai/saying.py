"""Converts items to the input of a route's model: a chat request, or text."""

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.session.events import Words
from gateway.transports.openai.errors import Invalid, unsupported
from gateway.transports.openai.items import (
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Reasoning,
    Refusal,
    words_of,
)
from gateway.transports.openai.requests import (
    AllowedTools,
    CreateResponse,
    FunctionTool,
    JsonObject,
    JsonSchema,
    NamedFunction,
)
from gateway.transports.told import Role, in_turns

Json = dict[str, Any]


def check_calls(items: Iterable[Item]) -> None:
    """Check that each output of a function call follows its call.

    Args:
        items: All items of a conversation, oldest first.

    Raises:
        Invalid: One of them does not.
    """
    called = set[str]()
    for item in items:
        if isinstance(item, FunctionCall):
            called.add(item.call_id)
        elif isinstance(item, FunctionCallOutput) and item.call_id not in called:
            text = f"No function call with the id '{item.call_id}' precedes its output."
            raise Invalid(text, "input", code="no_such_call")


# Chat models


def messages_of(items: Iterable[Item]) -> list[Json]:
    """Convert items to the messages of a chat request.

    Reasoning is left out, as OpenAI does with that of previous turns.

    Raises:
        Invalid: An item can't be converted.
    """
    messages = list[Json]()
    for item in items:
        match item:
            case Message():
                message = _message(item)
                if len(messages) == 1 and message["role"] == messages[0]["role"] == "system":
                    # The templates of many models accept only one.
                    messages[0]["content"] += f"\n\n{message['content']}"
                else:
                    messages.append(message)
            case FunctionCall():
                _last_call(messages).append(
                    {
                        "id": item.call_id,
                        "type": "function",
                        "function": {"name": item.name, "arguments": item.arguments},
                    }
                )
            case FunctionCallOutput():
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": item.call_id,
                        "content": _tool_content(item.output),
                    }
                )
            case Reasoning():
                pass
    return messages


def _message(item: Message) -> Json:
    role = "system" if item.role == "developer" else item.role  # few templates support "developer"
    words = words_of(item.content)
    if words is not None:
        return {"role": role, "content": words}
    if role != "user":
        text = f"A message with the role '{item.role}' can contain only text."
        raise unsupported("input", text)
    return {"role": role, "content": [_part(part) for part in item.content]}  # type: ignore[arg-type]


def _part(part: Part) -> Json:
    match part:
        case InputImage():
            return {
                "type": "image_url",
                "image_url": {"url": part.image_url, "detail": part.detail},
            }
        case InputFile():
            file = {"file_data": part.file_data}
            if part.filename:
                file["filename"] = part.filename
            return {"type": "file", "file": file}
        case InputText() | OutputText():
            return {"type": "text", "text": part.text}
        case Refusal():
            return {"type": "text", "text": part.refusal}


def _last_call(messages: list[Json]) -> list[Json]:
    """Return the tool calls of the last message: consecutive calls share one message."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    calls: list[Json] = messages[-1].setdefault("tool_calls", [])
    return calls


def _tool_content(output: str | Sequence[Part]) -> str:
    words = words_of(output)
    if words is None:
        raise unsupported("input", "A function's output can contain only text.")
    return words


def chat_request(request: CreateResponse, items: Sequence[Item]) -> Json:
    """Return a chat request, without the parameters that the route adds.

    Args:
        request: The request for a response.
        items: The whole conversation, oldest item first, including the request's input.

    Raises:
        Invalid: An item can't be converted.
    """
    instructed: list[Item] = []
    if request.instructions:
        instructed.append(Message(role="system", content=request.instructions))
    body: Json = {"messages": messages_of([*instructed, *items])}
    for name, theirs in _PARAMETERS:
        if (value := getattr(request, name)) is not None:
            body[theirs] = value
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.wants_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    wanted = request.text.format if request.text is not None else None
    if isinstance(wanted, JsonSchema) and wanted.schema is not None:
        schema: Json = {"name": wanted.name, "schema": wanted.schema}
        if wanted.description is not None:
            schema["description"] = wanted.description
        if wanted.strict is not None:
            schema["strict"] = wanted.strict
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif isinstance(wanted, JsonObject | JsonSchema):
        body["response_format"] = {"type": "json_object"}
    return body | _tools(request)


_PARAMETERS = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("max_output_tokens", "max_tokens"),
)
"""Parameters of responses, and of chat requests: all containers support ``max_tokens``, but not all
of them ``max_completion_tokens``."""


def _tools(request: CreateResponse) -> Json:
    """Return the tools of a chat request, without those that the model is not allowed to call."""
    tools, chosen = request.tools or [], request.tool_choice
    choice: Any = chosen
    if isinstance(chosen, AllowedTools):
        names = {tool.name for tool in chosen.tools}
        tools, choice = [tool for tool in tools if tool.name in names], chosen.mode
    elif isinstance(chosen, NamedFunction):
        choice = {"type": "function", "function": {"name": chosen.name}}
    if not tools:
        return {}
    body: Json = {"tools": [_tool(tool) for tool in tools]}
    if choice is not None:
        body["tool_choice"] = choice
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def _tool(tool: FunctionTool) -> Json:
    function: Json = {"name": tool.name}
    for name in ("description", "parameters", "strict"):
        if (value := getattr(tool, name)) is not None:
            function[name] = value
    return {"type": "function", "function": function}


# Text models


def newest_words(items: Sequence[Item]) -> tuple[Sequence[Item], str]:
    """Split a request's input into a text model's input, and the items before that.

    Args:
        items: The request's input.

    Raises:
        Invalid: The last item is not a user's message with text only.
    """
    at = len(items)
    while at and isinstance(items[at - 1], Message) and items[at - 1].role == "user":  # type: ignore[union-attr]
        at -= 1
    newest = [_words(item) for item in items[at:]]
    if not newest:
        raise unsupported("input", "The last item must be a message of the user.")
    return items[:at], "\n\n".join(newest)


def spoken(items: Iterable[Item]) -> tuple[Words, ...]:
    """Convert a conversation to turns, as the history of a text model.

    Raises:
        Invalid: It has more than text.
    """
    return in_turns(_line(item) for item in items if not isinstance(item, Reasoning))


def _line(item: Item) -> tuple[Role, str]:
    is_models = isinstance(item, Message) and item.role == "assistant"
    return "assistant" if is_models else "user", _words(item)


def _words(item: Item) -> str:
    words = words_of(item.content) if isinstance(item, Message) else None
    if words is None:
        raise unsupported("input", "This route's model takes text only.")
    assert isinstance(item, Message)  # noqa: S101 - it has words
    if item.role in {"system", "developer"}:
        text = "The system message is in this route's configuration (`system`)."
        raise unsupported("input", text)
    return words
