"""A container as vLLM's SageMaker image is one for a chat: OpenAI's schema, sessions by AWS's own
code, and no memory of what was said. A session leads to this instance, and to nothing else.

``python -m tests.support.forgetful [PORT]`` says where it listens. An answer is made of the request
alone: "You said 2 things; your name is Ada." Where the newest message is a command, it is done
instead: ``/count 10`` counts, with pauses where it streams; ``/fail`` is an error, ``/break 3`` one
after three words. A request that vLLM or its usual chat templates would refuse is a 400.
``GET /requests`` is every turn that has come, in order, as ``{"session", "body"}``.
"""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import model_hosting_container_standards.sagemaker as standards
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.support.listening import listen

PAUSE = 0.02
"""Seconds between the words of ``/count`` and ``/break`` in a stream."""

_NAME = re.compile(r"\bmy name is (\w+)", re.IGNORECASE)

logging.basicConfig(level=logging.INFO)
app = FastAPI()
received: list[dict[str, Any]] = []


class Message(BaseModel):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """What matters of OpenAI's chat completions; vLLM takes further keys and ignores them."""

    model_config = ConfigDict(extra="allow")

    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)


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
        check_roles(request.messages)
        words, breaks = answer(request.messages)
    except ValidationError as error:
        return failure(400, error.json(include_url=False))
    except Refused as refused:
        return failure(refused.status, str(refused))
    if request.stream:
        return StreamingResponse(stream(words, breaks=breaks), media_type="text/event-stream")
    if breaks:
        return failure(500, "failed as asked")
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse(envelope("chat.completion", choice))


def check_roles(messages: list[Message]) -> None:
    """What many chat templates demand, Mistral's and Gemma's among them.

    Raises:
        Refused: They would raise this.
    """
    roles = [message.role for message in messages]
    if roles[0] == "system":
        del roles[0]
    alternating = ["user", "assistant"] * len(roles)
    if not roles or roles != alternating[: len(roles)] or roles[-1] != "user":
        raise Refused(
            400,
            "After the optional system message, conversation roles must alternate "
            "user/assistant/user/assistant/... and end with user",
        )


def answer(messages: list[Message]) -> tuple[list[str], bool]:
    """The answer's words, and whether the model fails after them.

    Raises:
        Refused: The newest message asks for that.
    """
    said = [message.content for message in messages if message.role == "user"]
    command, _, amount = said[-1].partition(" ")
    match command:
        case "/fail":
            raise Refused(500, "failed as asked")
        case "/count" | "/break":
            words = [f"{number} " for number in range(1, int(amount) + 1)]
            return words, command == "/break"
    names = [name[1] for text in said if (name := _NAME.search(text))]
    things = "1 thing" if len(said) == 1 else f"{len(said)} things"
    knows = f"your name is {names[-1]}" if names else "I do not know your name"
    return re.findall(r"\S+\s*", f"You said {things}; {knows}."), False


async def stream(words: list[str], *, breaks: bool) -> AsyncIterator[str]:
    """OpenAI's chunks as vLLM writes them: a role, the words, a reason, and the end."""
    paused = PAUSE if breaks or words[0] == "1 " else 0
    yield event(delta({"role": "assistant", "content": ""}))
    for word in words:
        yield event(delta({"content": word}))
        await asyncio.sleep(paused)
    if breaks:
        yield event(wrong(500, "failed as asked"))
    else:
        yield event(delta({"content": ""}, reason="stop"))
    yield "data: [DONE]\n\n"


def delta(content: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    """One chunk."""
    choice = {"index": 0, "delta": content, "finish_reason": reason}
    return envelope("chat.completion.chunk", choice)


def envelope(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    """What is around a choice."""
    about = {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": "forgetful"}
    return {**about, "choices": [choice]}


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
