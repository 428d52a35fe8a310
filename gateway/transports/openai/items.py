"""Items: what a conversation is made of in Open Responses, as clients send and are sent it.

An item that a client has sent and one that a model has made are the same kinds of values, since
each may be the input of what comes next. What a client leaves out of one (its ``id``, its
``status``) is put in when it is taken. Fields that are not known are passed over: items come back
from other servers, and from newer clients, with more than the specification has.
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
    """An item, or a part of one's content."""


class InputText(_Value, frozen=True, kw_only=True, tag="input_text"):
    """Words of a user, or for the model."""

    text: str


class InputImage(_Value, frozen=True, kw_only=True, tag="input_image"):
    """An image: the address of one, or itself in a ``data:`` URL."""

    image_url: str
    detail: Literal["low", "high", "auto"] | None = "auto"


class InputFile(_Value, frozen=True, kw_only=True, tag="input_file"):
    """A file, in a ``data:`` URL."""

    file_data: str
    filename: str | UnsetType = UNSET


class OutputText(_Value, frozen=True, kw_only=True, tag="output_text"):
    """Words of a model."""

    text: str
    annotations: list[Any] | None = field(default_factory=list)
    logprobs: list[Any] | None = field(default_factory=list)


class Refusal(_Value, frozen=True, kw_only=True, tag="refusal"):
    """Why a model does not answer."""

    refusal: str


class ReasoningText(_Value, frozen=True, kw_only=True, tag="reasoning_text"):
    """What a model thinks before it answers."""

    text: str


class SummaryText(_Value, frozen=True, kw_only=True, tag="summary_text"):
    """The same in brief."""

    text: str


Part = InputText | InputImage | InputFile | OutputText | Refusal
"""A part of a message."""


class Message(_Value, frozen=True, kw_only=True, tag="message"):
    """What somebody says; ``phase`` is a label that some clients give back as they got it."""

    id: str | None = None
    status: Status | None = None
    role: Role
    content: str | list[Part]
    phase: str | UnsetType | None = UNSET


class FunctionCall(_Value, frozen=True, kw_only=True, tag="function_call"):
    """A model asks its client to call a function; ``arguments`` is JSON, as the model wrote it."""

    id: str | None = None
    call_id: str
    name: str
    arguments: str
    status: Status | None = None


class FunctionCallOutput(_Value, frozen=True, kw_only=True, tag="function_call_output"):
    """What that call has given."""

    id: str | None = None
    call_id: str
    output: str | list[InputText | InputImage | InputFile]
    status: Status | None = None


class Reasoning(_Value, frozen=True, kw_only=True, tag="reasoning"):
    """What a model has thought."""

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
    """The id of an item: the same each time it is made.

    Args:
        kind: What it is.
        owner: The id of what it is a part of, which can't be told from this: it may be a secret.
        index: Which of that one's items it is.
    """
    return f"{_PREFIXES[kind]}_{sha256(f'{owner} {index}'.encode()).hexdigest()[:40]}"


def taken(items: str | Iterable[Item], owner: str) -> list[Item]:
    """A client's items as they are kept and shown: whole, and each with an id.

    Args:
        items: They, or a user's words.
        owner: What their ids are made from; see `item_id`.
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
    """A message's content as words; None where it has more than those."""
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
