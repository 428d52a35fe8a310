"""Responses over a WebSocket by OpenAI's own client: one connection, one session."""

import json
import threading
import time
from typing import Any

import openai
import pytest
from openai.resources.responses.responses import ResponsesConnection
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.openaisdk import text_of
from tests.support.openresponses import check_stream
from tests.support.processes import admin
from tests.support.responding import WEATHER, Chat, Json, session_of
from tests.support.timing import UNIT

# The client does not yet connect as newer versions of websockets want it.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)

OVER = {"response.completed", "response.failed", "response.incomplete"}


def told(connection: ResponsesConnection) -> list[Json]:
    """The events of one response, or an error."""
    events = list[Json]()
    while not events or events[-1]["type"] not in {*OVER, "error"}:
        events.append(json.loads(connection.recv_bytes()))
    return events


def flood(connection: ResponsesConnection) -> None:
    """Ask for ever more, and read nothing."""
    while True:
        connection.response.create(model="chat", input="/slow 1 many")


def ask(connection: ResponsesConnection, **more: Any) -> Json:
    """Have a response made, which is as the specification has it."""
    connection.response.create(**{"model": "chat", **more})
    return check_stream(told(connection))


def refused(connection: ResponsesConnection, **more: Any) -> Json:
    """Why there is none."""
    connection.response.create(**{"model": "chat", **more})
    (event,) = told(connection)
    assert event["type"] == "error"
    error: Json = event["error"]
    assert error["message"]
    assert event["status"] >= 400
    return error


def test_one_connection_one_session(sdk: openai.OpenAI, chat: Chat) -> None:
    with sdk.responses.connect() as connection:
        one = ask(connection, input="ws one")
        two = ask(connection, input="ws two", previous_response_id=one["id"])
        fresh = ask(connection, input="ws fresh")
        again = ask(connection, input="ws branch", previous_response_id=one["id"])
    turns = [chat.turn(f"ws {each}") for each in ("one", "two", "fresh")]
    assert len({turn["session"] for turn in turns}) == 1
    assert [len(turn["body"]["messages"]) for turn in turns] == [2, 4, 2]
    assert text_of(two) == "[Be kind.] You said: ws two"
    assert session_of(again["id"]) != session_of(fresh["id"])
    assert len(chat.turn("ws branch")["body"]["messages"]) == 4
    assert sdk.responses.retrieve(two["id"]).output_text == text_of(two)
    on = sdk.responses.create(model="chat", input="ws on", previous_response_id=again["id"])
    assert session_of(on) == session_of(again["id"])


def opened(chat: Chat) -> int:
    """How many sessions are open at the model."""
    states = admin(chat.platform)["instances"]
    return sum(each["opened"] - each["closed"] for each in states)


def test_what_is_not_stored_is_the_connections(sdk: openai.OpenAI, chat: Chat) -> None:
    before = opened(chat)
    with sdk.responses.connect() as connection:
        one = ask(connection, input="My code word is cobalt.", store=False)
        two = ask(connection, input="unstored two", previous_response_id=one["id"], store=False)
        kept = ask(connection, input="unstored three", previous_response_id=two["id"])
        assert session_of(kept["id"]) == session_of(one["id"])
        fresh = ask(connection, input="unstored fresh", store=False)
    assert len(chat.turn("unstored three")["body"]["messages"]) == 6
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(one["id"])
    on = sdk.responses.create(
        model="chat", input="unstored four", previous_response_id=kept["id"], store=False
    )
    assert on.output_text.endswith("unstored four")
    assert len(chat.turn("unstored four")["body"]["messages"]) == 8
    with sdk.responses.connect() as connection:
        error = refused(connection, input="x", previous_response_id=fresh["id"], store=False)
        assert error["code"] == "previous_response_not_found"
        ask(connection, input="recovered", store=False)
    until = time.monotonic() + 20 * UNIT
    while opened(chat) > before:
        assert time.monotonic() < until, "sessions are left open"


def test_a_continuation_that_fails_forgets(sdk: openai.OpenAI) -> None:
    output: Any = {"type": "function_call_output", "call_id": "call_x", "output": "y"}
    with sdk.responses.connect() as connection:
        one = ask(connection, input="Remember: ember.", store=False)
        asked: Json = {"previous_response_id": one["id"], "store": False}
        assert refused(connection, input=[output], **asked)["code"] == "no_such_call"
        error = refused(connection, input="stale", **asked)
        assert error["code"] == "previous_response_not_found"


def test_a_warm_up_opens_the_session(sdk: openai.OpenAI, chat: Chat) -> None:
    before = opened(chat)
    with sdk.responses.connect() as connection:
        given: Any = [{"role": "user", "content": "My name is Ada."}]
        warm = ask(connection, generate=False, input=given, tools=[WEATHER])
        assert (warm["output"], warm["status"]) == ([], "completed")
        assert opened(chat) == before + 1
        on = ask(connection, input="warm one", previous_response_id=warm["id"])
        assert opened(chat) == before + 1
        again = ask(connection, generate=False, previous_response_id=on["id"], input="Also warm.")
        ask(connection, input="warm two", previous_response_id=again["id"])
        assert opened(chat) == before + 1
    asked = chat.turn("warm two")["body"]["messages"]
    assert [each["content"] for each in asked if each["role"] == "user"] == [
        "My name is Ada.",
        "warm one",
        "Also warm.",
        "warm two",
    ]
    late = sdk.responses.create(model="chat", input="warm late", previous_response_id=warm["id"])
    assert len(chat.turn("warm late")["body"]["messages"]) == 3
    assert session_of(late) != session_of(on["id"])


def test_tools(sdk: openai.OpenAI) -> None:
    with sdk.responses.connect() as connection:
        asked = ask(connection, input="The weather in Oslo?", tools=[WEATHER], store=False)
        (call,) = asked["output"]
        output: Any = {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": "64 degrees",
        }
        answer = ask(connection, input=[output], previous_response_id=asked["id"], store=False)
    assert text_of(answer) == "The tool says: 64 degrees"


def test_words(wordy: openai.OpenAI) -> None:
    with wordy.responses.connect() as connection:
        warm = ask(connection, model="words", generate=False)
        one = ask(
            connection, model="words", input="My name is Ada.", previous_response_id=warm["id"]
        )
        two = ask(
            connection, model="words", input="What is my name?", previous_response_id=one["id"]
        )
        assert "Ada" in text_of(two)
        assert len({session_of(each["id"]) for each in (warm, one, two)}) == 1
        other = ask(connection, model="words", input="What is my name?")
        assert "Ada" not in text_of(other)
        assert session_of(other["id"]) != session_of(one["id"])
        error = refused(connection, model="words", generate=False, input="x")
        assert error["param"] == "input"


def test_requests_wait_for_each_other(sdk: openai.OpenAI) -> None:
    with sdk.responses.connect() as connection:
        for mark in ("/slow 0.2 queue one", "queue two"):
            connection.response.create(model="chat", input=mark)
        first, second = (check_stream(told(connection)) for _ in range(2))
    assert [text_of(each)[-3:] for each in (first, second)] == ["one", "two"]
    assert session_of(first["id"]) == session_of(second["id"])
    with (
        sdk.responses.connect() as connection,
        pytest.raises(ConnectionClosedError, match="4429"),
    ):
        flood(connection)


def test_a_turn_goes_on_without_its_connection(sdk: openai.OpenAI) -> None:
    with sdk.responses.connect() as connection:
        connection.response.create(model="chat", input="/count 30")
        created = json.loads(connection.recv_bytes())
    stream = sdk.responses.retrieve(created["response"]["id"], stream=True)
    response = check_stream([event.to_dict(mode="json") for event in stream])
    assert text_of(response).endswith("29 30 ")


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("background", {"background": True}),
        ("stream", {"stream": False}),
        ("model", {"model": "none"}),
        ("prompt", {"prompt": {"id": "x"}}),
        ("previous_response_id", {"previous_response_id": "resp_missing_1", "store": False}),
        ("input", {"input": []}),
    ],
)
def test_what_is_refused(sdk: openai.OpenAI, param: str, more: Json) -> None:
    with sdk.responses.connect() as connection:
        assert refused(connection, **{"input": "x", **more})["param"] == param
        ask(connection, input="still there")


def test_frames_that_are_none(sdk: openai.OpenAI) -> None:
    with sdk.responses.connect() as connection:
        for frame in ("{", "[]", '{"type": "response.steer"}', b"\xff"):
            connection.send_raw(frame)
            (event,) = told(connection)
            assert event["type"] == "error"
            assert event["status"] == 400
        ask(connection, input="still there")


def test_what_fails_in_the_middle(sdk: openai.OpenAI) -> None:
    with sdk.responses.connect() as connection:
        failed = ask(connection, input="/break 2")
        assert failed["status"] == "failed"
        ask(connection, input="still there")


def test_a_page_of_another_origin_may_not_connect(chat: Chat) -> None:
    url = f"{chat.url.replace('http', 'ws')}/openai/v1/responses"
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(url, origin=Origin("https://evil.example")),
    ):
        pass
    assert caught.value.response.status_code == 403
    assert b'"forbidden"' in caught.value.response.body


def test_many_connections_at_once(chat: Chat) -> None:
    found = list[str]()

    def speak(number: int) -> None:
        with (
            openai.OpenAI(base_url=f"{chat.url}/openai/v1", api_key="x") as api,
            api.responses.connect() as connection,
        ):
            one = ask(connection, input=f"many {number} one")
            two = ask(connection, input="and", previous_response_id=one["id"])
            found.append(text_of(one) + text_of(two))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 5
