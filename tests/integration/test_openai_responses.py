"""Responses by OpenAI's own client, unmodified: against a chat's model that keeps no history, and
one of words that does.
"""

import json
import threading
import time
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

from tests.support.openaisdk import checked, client, events_of, streamed, text_of
from tests.support.openresponses import check_stream
from tests.support.processes import admin
from tests.support.responding import HEART, WEATHER, Chat, Json, session_of
from tests.support.timing import UNIT

# One response


def test_text(sdk: openai.OpenAI, chat: Chat) -> None:
    response = checked(sdk.responses.create(model="chat", input="hello one", metadata={"a": "b"}))
    assert response.output_text == "[Be kind.] You said: hello one"
    assert (response.status, response.model, response.metadata) == ("completed", "chat", {"a": "b"})
    assert response.usage is not None
    assert response.usage.output_tokens == 6
    assert chat.turn("hello one")["body"]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hello one"},
    ]


def test_items(sdk: openai.OpenAI, chat: Chat) -> None:
    checked(
        sdk.responses.create(
            model="chat",
            instructions="Be brief.",
            input=[
                {"role": "user", "content": "My name is Alice."},
                {"role": "assistant", "content": "Hello Alice!"},
                {"role": "user", "content": "What is my name, two?"},
            ],
            temperature=0.5,
            max_output_tokens=99,
        )
    )
    body = chat.turn("name, two")["body"]
    assert body["messages"] == [
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": "Hello Alice!"},
        {"role": "user", "content": "What is my name, two?"},
    ]
    assert (body["temperature"], body["max_tokens"]) == (0.5, 99)


def test_a_stream(sdk: openai.OpenAI) -> None:
    with sdk.responses.create(model="chat", input="/count 3", stream=True) as stream:
        response, events = streamed(stream)
    assert text_of(response) == "1 2 3 "
    deltas = [each["delta"] for each in events if each["type"] == "response.output_text.delta"]
    assert deltas == ["1 ", "2 ", "3 "]
    assert response["usage"]["output_tokens"] == 3


def test_the_clients_own_streams(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="chat", input="hello three", store=True) as stream:
        texts = [each.delta for each in stream if each.type == "response.output_text.delta"]
        response = stream.get_final_response()
    assert "".join(texts) == response.output_text == "[Be kind.] You said: hello three"


async def test_the_asynchronous_client(chat: Chat) -> None:
    async with openai.AsyncOpenAI(base_url=f"{chat.url}/openai/v1", api_key="key") as sdk:
        response = checked(await sdk.responses.create(model="chat", input="hello four"))
        stream = await sdk.responses.create(
            model="chat", input="and five", previous_response_id=response.id, stream=True
        )
        final = check_stream([event.to_dict(mode="json") async for event in stream])
        assert text_of(final).endswith("You said: and five")
        assert session_of(final["id"]) == session_of(response)
        found = checked(await sdk.responses.retrieve(final["id"]))
        assert found.to_dict(mode="json") == final


def test_what_is_cut(sdk: openai.OpenAI) -> None:
    response = checked(
        sdk.responses.create(model="chat", input="hello there you", max_output_tokens=2)
    )
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_tools(sdk: openai.OpenAI, chat: Chat) -> None:
    asked = "What is the weather like in Oslo?"
    response = checked(sdk.responses.create(model="chat", input=asked, tools=[WEATHER]))
    (call,) = response.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"location": "Oslo"})
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "64, six"}
    answer = checked(
        sdk.responses.create(
            model="chat", input=[output], previous_response_id=response.id, tools=[WEATHER]
        )
    )
    assert answer.output_text == "The tool says: 64, six"
    turn = chat.turn("64, six")
    assert [message["role"] for message in turn["body"]["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    with pytest.raises(openai.BadRequestError, match="No function call") as caught:
        sdk.responses.create(
            model="chat", input=[output | {"call_id": "x"}], previous_response_id=response.id
        )
    assert caught.value.param == "input"


def test_tools_streamed(sdk: openai.OpenAI) -> None:
    asked = "What is the weather like in San Francisco?"
    stream = sdk.responses.create(model="chat", input=asked, tools=[WEATHER], stream=True)
    response, events = streamed(stream)
    kinds = [event["type"] for event in events]
    assert kinds.count("response.function_call_arguments.delta") > 1
    assert kinds.count("response.function_call_arguments.done") == 1
    assert json.loads(response["output"][0]["arguments"]) == {"location": "San Francisco"}


class Said(BaseModel):
    said: str
    words: int


def test_structured_output(sdk: openai.OpenAI) -> None:
    response = sdk.responses.parse(model="chat", input="hello Seven", text_format=Said)
    checked(response)
    assert response.output_parsed == Said(said="Seven", words=2)


def test_images(sdk: openai.OpenAI) -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{HEART}"},
    ]
    asked: Any = {"model": "chat", "input": [{"role": "user", "content": content}]}
    response = checked(sdk.responses.create(**asked))
    assert response.output_text.startswith("I see image/png of 20 bytes")


# Going on


def test_a_chain_stays_in_its_session(sdk: openai.OpenAI, chat: Chat) -> None:
    one = checked(sdk.responses.create(model="chat", input="chain one", instructions="Be brief."))
    two = checked(
        sdk.responses.create(model="chat", input="chain two", previous_response_id=one.id)
    )
    three = checked(
        sdk.responses.create(model="chat", input="chain three", previous_response_id=two.id)
    )
    turns = [chat.turn(f"chain {number}") for number in ("one", "two", "three")]
    assert len({turn["session"] for turn in turns}) == 1
    assert [each["content"] for each in turns[2]["body"]["messages"]] == [
        "Be kind.",  # and no instructions of a former response
        "chain one",
        "[Be kind.\n\nBe brief.] You said: chain one",
        "chain two",
        "[Be kind.] You said: chain two",
        "chain three",
    ]
    assert three.usage is not None
    assert three.usage.input_tokens_details.cached_tokens > 0
    assert three.previous_response_id == two.id


def test_a_branch_goes_to_another_session(sdk: openai.OpenAI, chat: Chat) -> None:
    one = sdk.responses.create(model="chat", input="root")
    trunk = sdk.responses.create(model="chat", input="trunk", previous_response_id=one.id)
    branch = sdk.responses.create(model="chat", input="branch", previous_response_id=one.id)
    same = sdk.responses.create(model="chat", input="trunk", previous_response_id=one.id)
    on = sdk.responses.create(model="chat", input="on", previous_response_id=branch.id)
    assert session_of(one) == session_of(trunk)
    assert len({session_of(each) for each in (one, branch, same)}) == 3
    assert session_of(on) == session_of(branch)
    first, again = chat.turns('"trunk"')
    assert first["session"] != again["session"]
    assert [each["content"] for each in chat.turn('"on"')["body"]["messages"]][1::2] == [
        "root",
        "branch",
        "on",
    ]


def test_two_at_once_that_go_on_from_one_are_a_turn_and_a_branch(
    sdk: openai.OpenAI, chat: Chat
) -> None:
    one = sdk.responses.create(model="chat", input="fork root")
    found = list[Response]()

    def go_on() -> None:
        with client(chat.url) as other:
            found.append(
                other.responses.create(
                    model="chat", input="/slow 0.2 fork", previous_response_id=one.id
                )
            )

    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sessions = [session_of(each) for each in found]
    assert len(set(sessions)) == 3
    assert sessions.count(session_of(one)) == 1


def close(chat: Chat, response: Response) -> None:
    """End the session that has answered it, as an operator or a model might."""
    path = f"{chat.url}/v1/sessions/{session_of(response)}"
    key = {"Session-Key": response.id[37:69]}
    with httpx.Client(verify=False, headers=key, timeout=20 * UNIT) as http:
        http.delete(path).raise_for_status()
        if response.model == "short":
            while http.get(path).status_code != 404:  # its log is no longer kept either
                time.sleep(0.05)


@pytest.mark.parametrize("model", ["chat", "short"])
def test_a_session_that_is_gone_is_gone_on_from(sdk: openai.OpenAI, chat: Chat, model: str) -> None:
    one = sdk.responses.create(model=model, input=f"{model} one")
    close(chat, one)
    two = sdk.responses.create(model=model, input=f"{model} two", previous_response_id=one.id)
    assert session_of(one) != session_of(two)
    assert len(chat.turn(f"{model} two")["body"]["messages"]) == {"chat": 4, "short": 3}[model]
    assert sdk.responses.retrieve(one.id).output_text == one.output_text
    kinds = [each["type"] for each in events_of(sdk.responses.retrieve(one.id, stream=True))]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert (len(kinds) == 3) == (model == "short")
    last = events_of(sdk.responses.retrieve(one.id, stream=True, starting_after=3))
    assert last[-1]["type"] == "response.completed"
    assert last[-1]["response"] == one.to_dict(mode="json")


def test_what_can_not_be_gone_on_from(sdk: openai.OpenAI) -> None:
    stream = sdk.responses.create(model="chat", input="/break 2", stream=True)
    failed, _ = streamed(stream)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "model_error")
    assert text_of(failed) == "1 2 "
    running = sdk.responses.create(model="chat", input="/count 100", background=True)
    unstored = sdk.responses.create(model="chat", input="hi", store=False)
    for previous, code in (
        (failed["id"], "previous_response_failed"),
        (running.id, "previous_response_not_over"),
        (unstored.id, "previous_response_not_found"),
        ("resp_1", "previous_response_not_found"),
        (f"{running.id[:-1]}7", "previous_response_not_found"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.create(model="chat", input="x", previous_response_id=previous)
        assert (caught.value.code, caught.value.param) == (code, "previous_response_id")
    sdk.responses.cancel(running.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(unstored.id)


# Afterwards


def test_retrieving(sdk: openai.OpenAI) -> None:
    stream = sdk.responses.create(model="chat", input="/count 4", stream=True)
    response, events = streamed(stream)
    found = checked(sdk.responses.retrieve(response["id"]))
    assert found.to_dict(mode="json") == response
    again = events_of(sdk.responses.retrieve(response["id"], stream=True))
    assert again == events
    last = events_of(sdk.responses.retrieve(response["id"], stream=True, starting_after=6))
    assert last == events[7:]
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(f"resp_{'0' * 64}1")
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve("resp_1")
    with pytest.raises(openai.BadRequestError):
        sdk.responses.retrieve(response["id"], stream=True, starting_after="x")  # type: ignore[call-overload]


def test_a_stream_that_is_cut_is_gone_on_with(sdk: openai.OpenAI) -> None:
    begun = list[Json]()
    with sdk.responses.create(model="chat", input="/count 50", stream=True) as stream:
        for event in stream:
            begun.append(event.to_dict(mode="json"))
            if len(begun) == 8:
                break
    response_id = begun[0]["response"]["id"]
    rest = sdk.responses.retrieve(
        response_id, stream=True, starting_after=begun[-1]["sequence_number"]
    )
    response, events = streamed(rest, after=7)
    assert [each["sequence_number"] for each in events] == [*range(8, 8 + len(events))]
    assert text_of(response) == "".join(f"{number} " for number in range(1, 51))
    assert checked(sdk.responses.retrieve(response_id)).status == "completed"


def test_in_the_background(sdk: openai.OpenAI) -> None:
    response = checked(sdk.responses.create(model="chat", input="/count 20", background=True))
    assert (response.status, response.background, response.output) == ("in_progress", True, [])
    until = time.monotonic() + 30 * UNIT
    while response.status in {"queued", "in_progress"} and time.monotonic() < until:
        response = checked(sdk.responses.retrieve(response.id))
    assert response.status == "completed"
    assert response.output_text.startswith("1 2 3 ")
    stream = sdk.responses.create(model="chat", input="/count 3", background=True, stream=True)
    assert streamed(stream)[0]["background"]


def test_cancelling(sdk: openai.OpenAI, chat: Chat) -> None:
    response = sdk.responses.create(model="chat", input="/count 2000", background=True)
    while not sdk.responses.retrieve(response.id).output_text:
        pass
    cancelled = checked(sdk.responses.cancel(response.id))
    assert cancelled.status == "cancelled"
    assert cancelled.output_text.startswith("1 ")
    assert sdk.responses.cancel(response.id) == cancelled == sdk.responses.retrieve(response.id)
    on = sdk.responses.create(model="chat", input="cancelled on", previous_response_id=cancelled.id)
    assert session_of(on) == session_of(cancelled)
    assert chat.turn("cancelled on")["body"]["messages"][2]["content"] == cancelled.output_text
    over = sdk.responses.create(model="chat", input="hi")
    assert sdk.responses.cancel(over.id).status == "completed"


def test_deleting(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(model="chat", input="hi")
    running = sdk.responses.create(model="chat", input="/count 2000", background=True)
    for each in (response, running):
        sdk.responses.delete(each.id)
        for again in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                again(each.id)
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model="chat", input="hi", previous_response_id=response.id)


def test_input_items(sdk: openai.OpenAI) -> None:
    given: Any = [{"role": "user", "content": f"item {number}"} for number in range(5)]
    response = sdk.responses.create(model="chat", input=given)

    def words(page: Any) -> list[str]:
        return [item.content[0].text for item in page]

    assert words(sdk.responses.input_items.list(response.id)) == [
        f"item {number}" for number in (4, 3, 2, 1, 0)
    ]
    first = sdk.responses.input_items.list(response.id, limit=2, order="asc")
    assert words(first.data) == ["item 0", "item 1"]
    assert first.has_more
    assert words(first) == [f"item {number}" for number in range(5)]  # page after page
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_1"}):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.input_items.list(response.id, **wrong)
        assert caught.value.param == next(iter(wrong))


def test_what_is_not_stored(sdk: openai.OpenAI, chat: Chat) -> None:
    opened = sum(each["opened"] - each["closed"] for each in admin(chat.platform)["instances"])
    response = checked(sdk.responses.create(model="chat", input="hello", store=False))
    assert response.to_dict()["store"] is False
    until = time.monotonic() + 20 * UNIT
    while time.monotonic() < until:
        states = admin(chat.platform)["instances"]
        if sum(each["opened"] - each["closed"] for each in states) <= opened:
            break
    else:
        pytest.fail("its session is still open")


# What goes wrong


def test_a_turn_that_may_have_run_is_not_sent_again(chat: Chat) -> None:
    with client(chat.url, max_retries=3) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            sdk.responses.create(model="chat", input="/fail 503")
        assert caught.value.status_code == 424
        assert caught.value.request_id is not None
        stream = sdk.responses.create(model="chat", input="/fail 502", stream=True)
        assert streamed(stream)[0]["error"]["code"] == "model_error"
        for mark in ("/fail 503", "/fail 502"):
            chat.turn(mark)


def test_a_turn_that_has_not_run_is_sent_again(chat: Chat) -> None:
    with client(chat.url, max_retries=4) as sdk:
        one = sdk.responses.create(model="chat", input="throttle one")
        for stream in (False, True):
            mark = f"throttle {stream}"
            admin(chat.platform, "/faults", error="ThrottlingException", times=2)
            asked: Any = {"model": "chat", "input": mark, "previous_response_id": one.id}
            if stream:
                final, _ = streamed(sdk.responses.create(**asked, stream=True))
                assert final["status"] == "completed"
            else:
                one = sdk.responses.create(**asked)
            chat.turn(mark)


def test_a_request_that_is_sent_again_is_answered_once(sdk: openai.OpenAI, chat: Chat) -> None:
    key = {"Idempotency-Key": "once"}  # nobody says who they are
    again = {**key, "x-stainless-retry-count": "1"}
    one = sdk.responses.create(model="chat", input="again one", extra_headers=key)
    same = sdk.responses.create(model="chat", input="again one", extra_headers=again)
    assert one == same
    asked: Any = {"model": "chat", "input": "/slow 0.5 again two", "previous_response_id": one.id}
    found = list[Response]()
    with client(chat.url) as other:
        thread = threading.Thread(
            target=lambda: found.append(other.responses.create(**asked, extra_headers=key)),
            daemon=True,
        )
        thread.start()
        while not chat.turns("again two"):
            time.sleep(0.05)
        same = sdk.responses.create(**asked, extra_headers=again)
        thread.join()
    assert [same] == found
    streams = [
        streamed(sdk.responses.create(**asked, stream=True, extra_headers=more))
        for more in (key, again)
    ]
    assert streams[0] == streams[1]
    assert len(chat.turns("again two")) == 2
    chat.turn("again one")


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("prompt", {"prompt": {"id": "x"}}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "x"}]}]}),
        ("model", {"model": "none"}),
        ("model", {"model": "kept"}),
        ("input", {"input": []}),
        ("generate", {"extra_body": {"generate": False}}),
        ("conversation", {"conversation": "conv_1"}),
    ],
)
def test_what_is_refused(sdk: openai.OpenAI, param: str, more: Json) -> None:
    asked: Any = {"model": "chat", "input": "x", **more}
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.responses.create(**asked)
    assert caught.value.status_code in {400, 404}
    assert caught.value.param == param


# Words


def test_words(wordy: openai.OpenAI) -> None:
    one = checked(wordy.responses.create(model="words", input="My name is Ada."))
    two, _ = streamed(
        wordy.responses.create(
            model="words", input="What is my name?", previous_response_id=one.id, stream=True
        )
    )
    assert "Ada" in text_of(two)
    assert two["usage"] is None
    assert session_of(two["id"]) == session_of(one)


def test_words_that_branch(wordy: openai.OpenAI, history: openai.OpenAI) -> None:
    for model, sdk in (("told", wordy), ("history", history), ("words", wordy)):
        one = sdk.responses.create(model=model, input="My name is Ada.")
        sdk.responses.create(model=model, input="My name is Bob.", previous_response_id=one.id)
        asked: Any = {"model": model, "input": "What is my name?", "previous_response_id": one.id}
        if model != "words":
            branch = checked(sdk.responses.create(**asked))
            assert "Ada" in branch.output_text
            assert session_of(branch) != session_of(one)
            continue
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.create(**asked)
        assert (caught.value.code, caught.value.param) == ("unsupported", "previous_response_id")


def test_words_with_a_history(wordy: openai.OpenAI, history: openai.OpenAI) -> None:
    given: Any = [
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": "Hello Alice!"},
        {"role": "user", "content": "What is my name?"},
    ]
    for model, sdk in (("told", wordy), ("history", history)):
        assert "Alice" in sdk.responses.create(model=model, input=given).output_text
    with pytest.raises(openai.BadRequestError) as caught:
        wordy.responses.create(model="words", input=given)
    assert caught.value.param == "input"
    with pytest.raises(openai.BadRequestError) as caught:
        history.responses.create(model="history", input="x", truncation="disabled")
    assert caught.value.param == "truncation"


def test_what_words_can_not_say(wordy: openai.OpenAI) -> None:
    for more in ({"tools": [WEATHER]}, {"temperature": 0.5}, {"instructions": "Be brief."}):
        asked: Any = {"model": "words", "input": "x", **more}
        with pytest.raises(openai.BadRequestError) as caught:
            wordy.responses.create(**asked)
        assert (caught.value.code, caught.value.param) == ("unsupported", next(iter(more)))
