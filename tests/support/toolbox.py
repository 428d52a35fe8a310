"""A container as vLLM's SageMaker image is one for a chat with tools: OpenAI's schema, sessions by
AWS's own code, and answers that follow from the request alone.

``python -m tests.support.toolbox [PORT]`` says where it listens. Where the newest message is

- a tool's result, the answer is ``The tool says: …``;
- a user's, and a word of a function's name is in it, or ``tool_choice`` asks for one, the function
  is called, with arguments that its schema allows: strings are the words with a capital letter;
- one that shows images, the answer says what they are and how many bytes they have;
- a command, it is done: ``/count 10`` counts, with pauses where it streams, ``/break 3`` fails
  after three words, ``/fail`` is an error, ``/slow 0.5 hello`` waits before it echoes.

``response_format`` gets JSON of that schema; all else is echoed: ``You said: …``, after ``[Be
brief.]`` where there is a system message. ``usage`` counts words, and as cached those of the same
messages that the session was sent before: what a warm instance saves. ``GET /requests`` is every
turn that has come, in order, as ``{"session", "body"}``.
"""

import asyncio
import base64
import hashlib
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import model_hosting_container_standards.sagemaker as standards
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.support.listening import listen

PAUSE = 0.02
"""Seconds between the words of ``/count`` and ``/break`` in a stream."""

PIECE = 7
"""How many characters of a function's arguments a chunk has."""

logging.basicConfig(level=logging.INFO)
app = FastAPI()
received: list[dict[str, Any]] = []
before: defaultdict[str, list[Any]] = defaultdict(list)
"""The messages that each session has been sent last."""


class Message(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatRequest(BaseModel):
    """What matters of OpenAI's chat completions; vLLM takes further keys and ignores them."""

    model_config = ConfigDict(extra="allow")

    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    n: int = Field(default=1, ge=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None


class Answer(NamedTuple):
    """What the model says.

    Attributes:
        words: Its text, in pieces.
        calls: The functions that it calls, with their arguments.
        reason: Why it has stopped; None where it fails after its words.
        pauses: Whether its words come one after the other.
    """

    words: list[str]
    calls: list[tuple[str, str]]
    reason: str | None = "stop"
    pauses: bool = False


class Refused(Exception):
    """A request that is not served.

    Args:
        status: Of the answer.
        message: For people.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def only_json(raw_request: Request) -> None:
    """What vLLM asks of session requests too."""
    if raw_request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(400, "Unsupported Media Type: Only 'application/json' is allowed")


@app.get("/ping")
async def ping() -> Response:
    """Whether the container is up."""
    return Response()


@app.get("/requests")
async def requests() -> list[dict[str, Any]]:
    """Every turn that has come."""
    return received


@app.post("/invocations", dependencies=[Depends(only_json)])
@standards.stateful_session_manager()  # type: ignore[untyped-decorator]
async def invocations(raw_request: Request) -> Response:
    """One turn."""
    body = await raw_request.json()
    session = raw_request.headers.get("X-Amzn-SageMaker-Session-Id")
    received.append({"session": session, "body": body})
    try:
        request = ChatRequest.model_validate(body)
        check_order(request.messages)
        said = await answer(request)
    except ValidationError as error:
        return failure(400, error.json(include_url=False))
    except Refused as refused:
        return failure(refused.status, str(refused))
    usage = used(request, body["messages"], said, session or "")
    if request.stream:
        return StreamingResponse(stream(request, said, usage), media_type="text/event-stream")
    if said.reason is None:
        return failure(500, "failed as asked")
    choices = [whole(said, index) for index in range(request.n)]
    return JSONResponse({**envelope("chat.completion"), "choices": choices, "usage": usage})


def check_order(messages: list[Message]) -> None:
    """What many chat templates demand.

    Raises:
        Refused: They would raise this.
    """
    called = {call["id"] for message in messages for call in message.tool_calls or ()}
    for number, message in enumerate(messages):
        if message.role in {"system", "developer"} and number:
            raise Refused(400, "System message must be at the beginning.")
        if message.role == "tool" and message.tool_call_id not in called:
            raise Refused(400, "Tool results must follow the calls that they answer.")
    if messages[-1].role not in {"user", "tool"}:
        raise Refused(400, "Conversation must end with a user or tool message.")


def texts(message: Message) -> list[str]:
    """What is said in a message."""
    if message.content is None or isinstance(message.content, str):
        return [message.content or ""]
    return [part["text"] for part in message.content if part["type"] == "text"]


async def answer(request: ChatRequest) -> Answer:
    """What the model says to a request.

    Raises:
        Refused: It fails, as it is asked to.
    """
    newest = request.messages[-1]
    text = " ".join(texts(newest))
    command, _, amount = text.partition(" ")
    match command:
        case "/fail":
            raise Refused(int(amount or 500), "failed as asked")
        case "/count" | "/break":
            words = [f"{number} " for number in range(1, int(amount) + 1)]
            return cut(request, Answer(words, [], None if command == "/break" else "stop", True))
        case "/slow":
            seconds, _, text = amount.partition(" ")
            await asyncio.sleep(float(seconds))
    if newest.role == "tool":
        return cut(request, Answer(split(f"The tool says: {text}"), []))
    calls = [*called(request, text)]
    if calls:
        return Answer([], calls, "tool_calls")
    return cut(request, Answer(split(spoken(request, newest, text)), []))


def spoken(request: ChatRequest, newest: Message, text: str) -> str:
    """The text of an answer."""
    form = request.response_format or {"type": "text"}
    if form["type"] == "json_schema":
        return json.dumps(made(form["json_schema"]["schema"], text))
    if form["type"] == "json_object":
        return json.dumps({"said": text})
    images = [*seen(newest)]
    if images:
        return f"I see {' and '.join(images)}."
    first = request.messages[0]
    system = f"[{' '.join(texts(first))}] " if first.role in {"system", "developer"} else ""
    return f"{system}You said: {text}"


def seen(message: Message) -> Iterator[str]:
    """What the images of a message are."""
    for part in message.content if isinstance(message.content, list) else ():
        if part["type"] == "image_url":
            url = part["image_url"]["url"]
            if url.startswith("data:"):
                kind, _, data = url.removeprefix("data:").partition(";base64,")
                content = base64.b64decode(data, validate=True)
                digest = hashlib.sha256(content).hexdigest()[:8]
                yield f"{kind} of {len(content)} bytes ({digest})"
            else:
                yield f"an image at {url}"


def called(request: ChatRequest, text: str) -> Iterator[tuple[str, str]]:
    """The functions that are called, and their arguments."""
    functions = [tool["function"] for tool in request.tools or ()]
    choice = request.tool_choice
    if choice == "none" or not functions:
        return
    if isinstance(choice, dict):
        functions = [each for each in functions if each["name"] == choice["function"]["name"]]
    elif choice != "required":
        said = {word.strip("?!.,").lower() for word in text.split()}
        functions = [each for each in functions if said & {*each["name"].split("_")}]
    for function in functions if request.parallel_tool_calls else functions[:1]:
        yield function["name"], json.dumps(made(function.get("parameters") or {}, text))


def made(schema: dict[str, Any], text: str) -> Any:
    """A value that a JSON Schema allows, with what was said in it."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type", "object"):
        case "object":
            parts = schema.get("properties", {})
            return {name: made(part, text) for name, part in parts.items()}
        case "array":
            return [made(schema.get("items", {"type": "string"}), text)]
        case "integer" | "number" | "boolean" | "null" as kind:
            number = len(text.split())
            return {"integer": number, "number": number, "boolean": True, "null": None}[kind]
    words = [word.strip("?!.,'") for word in text.split()]
    return " ".join(word for word in words[1:] if word[:1].isupper()) or text


def split(text: str) -> list[str]:
    """Words with the spaces that follow them."""
    words = text.split(" ")
    return [f"{word} " for word in words[:-1]] + words[-1:]


def cut(request: ChatRequest, said: Answer) -> Answer:
    """No more words than are asked for."""
    most = request.max_completion_tokens or request.max_tokens
    if most is None or len(said.words) <= most:
        return said
    return said._replace(words=said.words[:most], reason="length")


def size(messages: list[Any]) -> int:
    """How many words messages have."""
    return sum(len(json.dumps(message).split()) for message in messages)


def used(request: ChatRequest, messages: list[Any], said: Answer, session: str) -> dict[str, Any]:
    """The usage of a turn."""
    pairs = zip(before[session], messages, strict=False)
    same = [new for _, new in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    before[session] = messages
    prompt = size(messages)
    completion = len(said.words) + sum(len(arguments.split()) for _, arguments in said.calls)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion * request.n,
        "total_tokens": prompt + completion * request.n,
        "prompt_tokens_details": {"cached_tokens": size(same)},
    }


def calls_of(said: Answer) -> list[dict[str, Any]]:
    """The calls of an answer, each with an id."""
    return [
        {
            "id": f"call_{hashlib.sha256(f'{number} {name} {given}'.encode()).hexdigest()[:12]}",
            "type": "function",
            "function": {"name": name, "arguments": given},
        }
        for number, (name, given) in enumerate(said.calls)
    ]


def whole(said: Answer, index: int) -> dict[str, Any]:
    """A choice in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said.words) or None}
    if said.calls:
        message["tool_calls"] = calls_of(said)
    return {"index": index, "message": message, "finish_reason": said.reason}


async def stream(request: ChatRequest, said: Answer, usage: dict[str, Any]) -> AsyncIterator[str]:
    """OpenAI's chunks as vLLM writes them: a role, the words, a reason, usage, and the end."""
    about = envelope("chat.completion.chunk")

    def chunk(delta: dict[str, Any], index: int, reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return event({**about, "choices": [choice]})

    for index in range(request.n):
        yield chunk({"role": "assistant", "content": ""}, index)
        for word in said.words:
            yield chunk({"content": word}, index)
            await asyncio.sleep(PAUSE if said.pauses else 0)
        for number, call in enumerate(calls_of(said)):
            function = call["function"]
            begun = {**call, "index": number, "function": {**function, "arguments": ""}}
            yield chunk({"tool_calls": [begun]}, index)
            given = function["arguments"]
            for at in range(0, len(given), PIECE):
                more = {"index": number, "function": {"arguments": given[at : at + PIECE]}}
                yield chunk({"tool_calls": [more]}, index)
        if said.reason is None:
            yield event(wrong(500, "failed as asked"))
        else:
            yield chunk({}, index, said.reason)
    if (request.stream_options or {}).get("include_usage"):
        yield event({**about, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def envelope(kind: str) -> dict[str, Any]:
    """What is around choices."""
    return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": "toolbox"}


def event(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


def wrong(status: int, message: str) -> dict[str, Any]:
    """An error in vLLM's words."""
    kind = "BadRequestError" if status == 400 else "InternalServerError"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def failure(status: int, message: str) -> Response:
    """A reply that is an error."""
    return JSONResponse(wrong(status, message), status)


standards.bootstrap(app)

if __name__ == "__main__":
    listen(app, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
