"""Items: the parts of a conversation in Open Responses, as clients send and receive them.

Input and output items have the same types, because an output item may be the input of the next
request. Fields that clients may omit (``id``, ``status``) are filled in by `taken`. Unknown fields
are ignored: items from other servers and newer clients have fields that the specification lacks.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field, structs

from gateway.protocol.discretion import Discreet

Status = Literal["in_progress", "completed", "incomplete"]
Role = Literal["user", "assistant", "system", "developer"]
FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class _Value(Discreet, frozen=True, kw_only=True, tag_field="type"):
    """Base of items and of the parts of their content."""


class InputText(_Value, frozen=True, kw_only=True, tag="input_text"):
    """Text of the user, or of another input for the model."""

    text: str


class InputImage(_Value, frozen=True, kw_only=True, tag="input_image"):
    """An image, by its URL or in a ``data:`` URL."""

    image_url: str
    detail: Literal["low", "high", "auto"] | None = "auto"


class InputFile(_Value, frozen=True, kw_only=True, tag="input_file"):
    """A file, in a ``data:`` URL."""

    file_data: str
    filename: str | UnsetType = UNSET


class OutputText(_Value, frozen=True, kw_only=True, tag="output_text"):
    """Text of the model."""

    text: str
    annotations: list[Any] | None = field(default_factory=list)
    logprobs: list[Any] | None = field(default_factory=list)


class Refusal(_Value, frozen=True, kw_only=True, tag="refusal"):
    """The model's explanation of why it does not answer."""

    refusal: str


class ReasoningText(_Value, frozen=True, kw_only=True, tag="reasoning_text"):
    """Text of the model's reasoning."""

    text: str


class SummaryText(_Value, frozen=True, kw_only=True, tag="summary_text"):
    """A summary of the model's reasoning."""

    text: str


Part = InputText | InputImage | InputFile | OutputText | Refusal
"""A part of a message's content."""


class Message(_Value, frozen=True, kw_only=True, tag="message"):
    """A message; ``phase`` is a label that some clients return unchanged."""

    id: str | None = None
    status: Status | None = None
    role: Role
    content: str | list[Part]
    phase: str | UnsetType | None = UNSET


class FunctionCall(_Value, frozen=True, kw_only=True, tag="function_call"):
    """The model's request to call a function; ``arguments`` is the JSON that the model wrote."""

    id: str | None = None
    call_id: str
    name: str
    arguments: str
    status: Status | None = None


class FunctionCallOutput(_Value, frozen=True, kw_only=True, tag="function_call_output"):
    """The result of a function call."""

    id: str | None = None
    call_id: str
    output: str | list[InputText | InputImage | InputFile]
    status: Status | None = None


class Reasoning(_Value, frozen=True, kw_only=True, tag="reasoning"):
    """The model's reasoning before its answer."""

    id: str | None = None
    status: Status | None = None
    summary: list[SummaryText] | None = field(default_factory=list)
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


Item = Message | FunctionCall | FunctionCallOutput | Reasoning

_PREFIXES: dict[type[Item], str] = {
    Message: "msg",
    FunctionCall: "fc",
    FunctionCallOutput: "fco",
    Reasoning: "rs",
}


def item_id(kind: type[Item], owner: str, index: int) -> str:
    """Return the id of an item, which is the same each time.

    Args:
        kind: Type of the item.
        owner: Id of the object that contains it. It may be a secret, and can't be derived from the
            result.
        index: Index of the item in that object.
    """
    return f"{_PREFIXES[kind]}_{sha256(f'{owner} {index}'.encode()).hexdigest()[:40]}"


def taken(items: str | Iterable[Item], owner: str) -> list[Item]:
    """Return a client's items as they are stored and returned: complete, and with ids.

    Args:
        items: The items, or the text of a user's message.
        owner: See `item_id`.
    """
    if isinstance(items, str):
        items = [Message(role="user", content=items)]
    return [_whole(item, item_id(type(item), owner, index)) for index, item in enumerate(items)]


def _whole(item: Item, new_id: str) -> Item:
    whole: dict[str, Any] = {"id": new_id, "status": item.status or "completed"}
    if isinstance(item, Message):
        content = item.content
        if isinstance(content, str):
            made = OutputText if item.role == "assistant" else InputText
            content = [made(text=content)] if content else []
        whole["content"] = [_detailed(part) for part in content]
    elif isinstance(item, FunctionCallOutput) and not isinstance(item.output, str):
        whole["output"] = [_detailed(part) for part in item.output]
    elif isinstance(item, Reasoning):
        whole["summary"] = item.summary or []
    return structs.replace(item, **whole)


def _detailed(part: Part) -> Part:
    if isinstance(part, InputImage) and part.detail is None:
        return structs.replace(part, detail="auto")
    if isinstance(part, OutputText) and (part.annotations is None or part.logprobs is None):
        kept = {"annotations": part.annotations or [], "logprobs": part.logprobs or []}
        return structs.replace(part, **kept)
    return part


def words_of(content: str | Sequence[Part]) -> str | None:
    """Return a message's content as text; None if it has anything else."""
    if isinstance(content, str):
        return content
    words = list[str]()
    for part in content:
        if isinstance(part, InputText | OutputText):
            words.append(part.text)
        elif isinstance(part, Refusal):
            words.append(part.refusal)
        else:
            return None
    return "".join(words)
