"""The acceptance cases of Open Responses, version 2026-04-24, against a container that calls tools.

They are its own requests (``src/lib/compliance-tests.ts`` there), by no client but HTTP and
WebSocket, so that what is around events is seen too. Its cases of ``/responses/compact``, which a
server may have, are those that are refused.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.openresponses import OVER, check_response, check_stream, check_websocket_error
from tests.support.responding import HEART, Chat, Json
from tests.support.timing import UNIT


def said(role: str, content: Any, **more: Any) -> Json:
    return {"type": "message", "role": role, "content": content, **more}


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city and state"}},
        "required": ["location"],
    },
}
ASKED = "What's the weather like in San Francisco?"
PICTURE = [
    {"type": "input_text", "text": "What do you see in this image? Answer in one sentence."},
    {"type": "input_image", "image_url": f"data:image/png;base64,{HEART}"},
]
CASES: dict[str, Json] = {
    "basic-response": {"input": [said("user", "Say hello in exactly 3 words.")]},
    "assistant-phase": {
        "input": [
            said("assistant", "I should answer with the saved number.", phase="commentary"),
            said("assistant", "The number is four.", phase="final_answer"),
            said("user", "Repeat only the number."),
        ]
    },
    "streaming-response": {"input": [said("user", "Count from 1 to 5.")]},
    "system-prompt": {
        "input": [said("system", "Always respond in pirate speak."), said("user", "Say hello.")]
    },
    "tool-calling": {"input": [said("user", ASKED)], "tools": [WEATHER]},
    "image-input": {"input": [said("user", PICTURE)]},
    "multi-turn": {
        "input": [
            said("user", "My name is Alice."),
            said("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
            said("user", "What is my name?"),
        ]
    },
}
"""What is asked, each in one piece and as a stream."""


@pytest.fixture(scope="module")
def http(chat: Chat) -> Iterator[httpx.Client]:
    url, headers = f"{chat.url}/openai/v1", {"Authorization": "Bearer any"}
    with httpx.Client(base_url=url, headers=headers, verify=False, timeout=60 * UNIT) as http:
        yield http


def check_output(name: str, response: Json) -> None:
    """What is asked of every response, and of this one."""
    assert response["status"] == "completed"
    assert response["output"]
    kinds = {item["type"] for item in response["output"]}
    assert kinds == ({"function_call"} if name == "tool-calling" else {"message"})


@pytest.mark.parametrize("name", CASES)
def test_in_one_piece(http: httpx.Client, name: str) -> None:
    answer = http.post("/responses", json={"model": "chat", **CASES[name]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    check_output(name, check_response(answer.json()))


@pytest.mark.parametrize("name", CASES)
def test_as_a_stream(http: httpx.Client, name: str) -> None:
    body = {"model": "chat", **CASES[name], "stream": True}
    with http.stream("POST", "/responses", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        *events, last = answer.read().decode().removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    told = []
    for event in events:
        if event == ":":
            continue  # a comment, where a part of the reply was none in the API's words
        kind, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {told[-1]['type']}"
    check_output(name, check_stream(told))
    if name == "tool-calling":
        kinds = {event["type"] for event in told}
        done = "response.function_call_arguments.done"
        assert kinds >= {done, "response.function_call_arguments.delta"}


# Over a WebSocket


@contextmanager
def connected(chat: Chat) -> Iterator[ClientConnection]:
    url = f"{chat.url.replace('http', 'ws', 1)}/openai/v1/responses"
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    with connect(url, additional_headers=headers) as socket:
        yield socket


def told(frames: Iterable[str | bytes]) -> list[Json]:
    """The events of one response, or an error."""
    events = list[Json]()
    for frame in frames:
        events.append(json.loads(frame))
        if events[-1]["type"] in {*OVER, "error"}:
            break
    return events


def ask(socket: ClientConnection, given: Any, **more: Any) -> Json:
    """A response."""
    socket.send(json.dumps({"type": "response.create", "model": "chat", "input": given, **more}))
    return check_stream(told(socket))


def refused(socket: ClientConnection, given: Any, **more: Any) -> str:
    """Why there is none, for programs."""
    socket.send(json.dumps({"type": "response.create", "model": "chat", "input": given, **more}))
    (event,) = told(socket)
    check_websocket_error(event)
    return str(event["error"]["code"])


def test_a_response_over_a_websocket(chat: Chat) -> None:
    with connected(chat) as socket:
        assert ask(socket, [said("user", "Count from 1 to 3.")])["status"] == "completed"


def test_responses_in_sequence(chat: Chat) -> None:
    with connected(chat) as socket:
        for word in ("first", "second"):
            response = ask(socket, f"Reply with exactly: {word}", store=False)
            check_output("", response)


def test_a_continuation(chat: Chat) -> None:
    with connected(chat) as socket:
        first = ask(socket, "Remember the code word: cobalt. Reply with OK.", store=False)
        response = ask(
            socket,
            "What is the code word, acceptance?",
            store=False,
            previous_response_id=first["id"],
        )
        check_output("", response)
    assert "cobalt" in str(chat.turn("code word, acceptance?")["body"]["messages"][1])


def test_recovery_over_another_connection(chat: Chat) -> None:
    with connected(chat) as socket:
        first = ask(socket, "Remember the code word: copper. Reply with OK.", store=False)
    with connected(chat) as socket:
        code = refused(socket, "Go on.", store=False, previous_response_id=first["id"])
        assert code == "previous_response_not_found"
        ask(socket, [said("user", "Reply with exactly: recovered")], store=False)


def test_a_previous_response_that_is_not_there(chat: Chat) -> None:
    with connected(chat) as socket:
        missing = "resp_openresponses_missing_1"
        code = refused(socket, "x", store=False, previous_response_id=missing)
        assert code == "previous_response_not_found"


def test_a_failed_continuation_is_forgotten(chat: Chat) -> None:
    with connected(chat) as socket:
        first = ask(socket, "Remember the code word: ember. Reply with OK.", store=False)
        on: Json = {"store": False, "previous_response_id": first["id"]}
        output = {"type": "function_call_output", "call_id": "call_missing", "output": "none"}
        assert refused(socket, [output], **on) == "no_such_call"
        assert refused(socket, "stale", **on) == "previous_response_not_found"


def test_compaction_is_not_there(http: httpx.Client) -> None:
    answer = http.post("/responses/compact", json={"model": "chat", "input": "x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    assert answer.headers["x-should-retry"] == "false"
