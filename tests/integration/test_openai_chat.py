"""Chat completions by OpenAI's own client in Python, against a container that calls functions."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.integration.conftest import AWS
from tests.support import node
from tests.support.processes import Forgetful, Process, admin, gateway, local
from tests.support.timing import UNIT

ROUTES = """
[routes.tools]
endpoint_name = "my-endpoint"
format = "openai-chat"

[routes.kind]
endpoint_name = "my-endpoint"
format = "openai-chat"
system = "Be kind."
request = { messages = "$messages", stream = "$stream", model = "lora", max_tokens = 50 }

[routes.words]
endpoint_name = "my-endpoint"
request = { messages = [{ role = "user", content = "$text" }], stream = "$stream" }
text = "choices[0].delta.content || choices[0].message.content"
stream = "sse"

[routes.history]
endpoint_name = "my-endpoint"
format = "lmi"
stream = "sse"

[routes.once]
endpoint_name = "my-endpoint"
format = "openai-chat"
retries = 0

[routes.raw]
endpoint_name = "my-endpoint"
resume_seconds = 0
"""

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


@pytest.fixture(scope="module")
def containers(
    transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Forgetful]]:
    """Two, so that a session leads to one of them; others for each transport, since tests look at
    all that has reached them.
    """
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp(f"toolbox-{transport}")
        started = [Forgetful(folder / name, module="toolbox") for name in ("1", "2")]
        for container in started:
            stack.callback(container.stop)
        yield started


@pytest.fixture(scope="module")
def platform(containers: list[Forgetful]) -> Iterator[Process]:
    with local(*(f"--container={container.url}" for container in containers)) as process:
        yield process


@pytest.fixture(scope="module")
def served(
    platform: Process, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """A gateway in front of them."""
    file = tmp_path_factory.mktemp("gateway") / "gateway.toml"
    file.write_text(AWS.format(url=platform.url, transport=transport) + ROUTES)
    with gateway(file) as process:
        yield process


def client_of(served: Process, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/openai/v1", api_key="any", timeout=20 * UNIT, **options)


@pytest.fixture
def client(served: Process) -> Iterator[OpenAI]:
    with client_of(served) as client:
        yield client


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def sessions_of(containers: list[Forgetful], words: str) -> list[str]:
    """The sessions of all turns that have these words in them, in their order."""
    turns = [turn for container in containers for turn in container.received()]
    return [turn["session"] for turn in turns if words in json.dumps(turn["body"])]


# Models


def test_models_are_routes(client: OpenAI) -> None:
    listed = client.models.list()
    assert [model.id for model in listed] == ["tools", "kind", "words", "history", "once", "raw"]
    assert client.models.retrieve("tools").owned_by == "session-gateway"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("none")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert (refused.value.request_id or "").startswith("req_")


def test_what_there_is_none_of_says_what_there_is(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="tools", input="x")
    assert "chat completions" in refused.value.message
    assert refused.value.code == "unknown_url"


# One completion


def test_a_completion(client: OpenAI) -> None:
    done = client.chat.completions.create(model="tools", messages=[user("Hello")])
    (choice,) = done.choices
    assert choice.message.content == "You said: Hello"
    assert choice.finish_reason == "stop"
    assert done.model == "tools"
    assert done.id.startswith("chatcmpl-")
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + 3
    assert done._request_id is not None
    session = done._request_id.split("_")[1]
    assert session in done.id, "what an operator finds in the log"


def test_a_stream(client: OpenAI) -> None:
    chunks = [
        *client.chat.completions.create(
            model="tools",
            messages=[user("Hello you")],
            stream=True,
            stream_options={"include_usage": True},
        )
    ]
    said = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert said == ["You ", "said: ", "Hello ", "you"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert {(c.model, c.id) for c in chunks} == {("tools", chunks[0].id)}
    plain = [*client.chat.completions.create(model="tools", messages=[user("Hello")], stream=True)]
    assert not any(chunk.usage for chunk in plain)


async def test_the_same_without_waiting(served: Process) -> None:
    async with AsyncOpenAI(base_url=f"{served.url}/openai/v1", api_key="any") as client:
        asked = [
            client.chat.completions.create(model="tools", messages=[user(f"Hello {number}")])
            for number in range(5)
        ]
        answers = [done.choices[0].message.content for done in await asyncio.gather(*asked)]
        assert answers == [f"You said: Hello {number}" for number in range(5)]
        stream = await client.chat.completions.create(
            model="tools", messages=[user("/count 3")], stream=True
        )
        said = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(said) == "1 2 3 "


def test_what_the_route_says_of_its_model(client: OpenAI, containers: list[Forgetful]) -> None:
    done = client.chat.completions.create(
        model="kind",
        messages=[{"role": "system", "content": "Be brief."}, user("sunflower")],
        temperature=0.5,
        extra_body={"top_k": 3},
    )
    assert done.choices[0].message.content == "[Be kind.\n\nBe brief.] You said: sunflower"
    turns = [turn["body"] for container in containers for turn in container.received()]
    (body,) = [each for each in turns if "sunflower" in json.dumps(each)]
    assert body["model"] == "lora"
    assert (body["max_tokens"], body["temperature"], body["top_k"]) == (50, 0.5, 3)


# Functions, images, forms


def test_functions_are_called(client: OpenAI) -> None:
    messages = [user("What is the weather in New York?")]
    first = client.chat.completions.create(model="tools", messages=messages, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "New York", "days": 7}
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    second = client.chat.completions.create(model="tools", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "The tool says: Sunny."
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens, "the session is warm"


def test_functions_are_called_in_a_stream(client: OpenAI, containers: list[Forgetful]) -> None:
    messages = [user("What is the weather in Sankt Poelten?")]
    with client.chat.completions.stream(
        model="tools", messages=messages, tools=[WEATHER]
    ) as stream:
        done = stream.get_final_completion()
    (call,) = done.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Sankt Poelten", "days": 7}
    asked = done.choices[0].message.model_dump(
        include={"role": True, "content": True, "tool_calls": True}
    )
    for each in asked["tool_calls"]:
        each.pop("index", None)
        each["function"].pop("parsed_arguments", None)
    messages += [asked, {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    client.chat.completions.create(model="tools", messages=messages, tools=[WEATHER])
    first, second = sessions_of(containers, "Sankt Poelten")
    assert first == second


def test_images_are_seen(client: OpenAI) -> None:
    image = base64.b64encode(bytes(range(200))).decode()
    content: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    done = client.chat.completions.create(
        model="tools", messages=[{"role": "user", "content": content}]
    )
    assert (done.choices[0].message.content or "").startswith("I see image/png of 200 bytes")


def test_answers_have_the_form_that_is_asked_for(client: OpenAI) -> None:
    class City(BaseModel):
        name: str
        people: int

    done = client.chat.completions.parse(
        model="tools", messages=[user("Tell me of Vienna")], response_format=City
    )
    assert done.choices[0].message.parsed == City(name="Vienna", people=4)


def test_several_choices(client: OpenAI) -> None:
    done = client.chat.completions.create(model="tools", messages=[user("Hello")], n=2)
    assert [choice.index for choice in done.choices] == [0, 1]


# Conversations


@pytest.mark.parametrize("model", ["tools", "history", "words"])
@pytest.mark.parametrize("streams", [False, True])
def test_a_conversation_stays_with_its_session(
    client: OpenAI, containers: list[Forgetful], model: str, streams: bool
) -> None:
    mark = f"{model}-{streams}"
    messages: list[Any] = []
    for number in range(3):
        messages.append(user(f"{mark} {number}"))
        if streams:
            stream = client.chat.completions.create(model=model, messages=messages, stream=True)
            parts = [c.choices[0].delta.content or "" for c in stream if c.choices]
            text = "".join(parts)
        else:
            done = client.chat.completions.create(model=model, messages=messages)
            text = done.choices[0].message.content or ""
        assert text == f"You said: {mark} {number}"
        messages.append({"role": "assistant", "content": text})
    sessions = sessions_of(containers, mark)
    assert len(sessions) == 3
    assert len({*sessions}) == 1
    bodies = [turn["body"] for container in containers for turn in container.received()]
    last = [body for body in bodies if f"{mark} 2" in json.dumps(body)][-1]["messages"]
    assert len(last) == (1 if model == "words" else 5)


def test_what_goes_on_elsewhere_is_another_session(
    client: OpenAI, containers: list[Forgetful]
) -> None:
    first = [user("crossroads"), {"role": "assistant", "content": "You said: crossroads"}]
    for words in ("crossroads", "left", "right"):
        messages = [user(words)] if words == "crossroads" else [*first, user(words)]
        client.chat.completions.create(model="tools", messages=messages)
    sessions = [*sessions_of(containers, "left"), *sessions_of(containers, "right")]
    assert len({*sessions}) == 2
    changed = [*first[:1], {"role": "assistant", "content": "No."}, user("left")]
    client.chat.completions.create(model="tools", messages=changed)
    assert len({*sessions_of(containers, "crossroads")}) == 3


@pytest.mark.parametrize("by_header", [False, True])
def test_a_conversation_can_be_named(
    client: OpenAI, containers: list[Forgetful], by_header: bool
) -> None:
    """Also one whose client writes another history each time."""
    mark = f"named-{by_header}"
    named: Any = (
        {"extra_headers": {"X-Session-Id": mark}} if by_header else {"prompt_cache_key": mark}
    )
    for number in range(3):
        messages = [user(f"{mark} so far {number}")]
        client.chat.completions.create(model="tools", messages=messages, **named)
    assert len({*sessions_of(containers, mark)}) == 1
    bodies = [turn["body"] for container in containers for turn in container.received()]
    assert not any("prompt_cache_key" in body for body in bodies)


def test_a_model_that_can_not_be_told_says_so(client: OpenAI) -> None:
    said: Any = [user("a"), {"role": "assistant", "content": "which it has not said"}, user("b")]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="words", messages=said)
    assert (refused.value.param, refused.value.code) == ("messages", "unsupported")


def test_a_history_that_the_gateway_keeps_begins_with_what_was_said(client: OpenAI) -> None:
    said: Any = [user("a"), {"role": "assistant", "content": "elsewhere"}, user("Hello")]
    done = client.chat.completions.create(model="history", messages=said)
    assert done.choices[0].message.content == "You said: Hello"


# Mistakes


@pytest.mark.parametrize(
    ("model", "asked", "param", "code"),
    [
        ("words", {"tools": [WEATHER]}, "tools", "unsupported"),
        ("words", {"temperature": 0.3}, "temperature", "unsupported"),
        ("words", {"response_format": {"type": "json_object"}}, "response_format", "unsupported"),
        (
            "words",
            {"stream": True, "stream_options": {"include_usage": True}},
            "stream_options.include_usage",
            "unsupported",
        ),
        ("words", {"messages": [{"role": "system", "content": "x"}]}, "messages[0]", "unsupported"),
        ("words", {"messages": []}, "messages", "invalid_value"),
        ("tools", {"messages": []}, "messages", "invalid_value"),
        ("tools", {"messages": [{"content": "x"}]}, "messages[0].role", None),
        ("tools", {"store": True}, "store", "unsupported"),
        ("tools", {"metadata": {"a": "b"}}, "metadata", "unsupported"),
        ("tools", {"stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ("raw", {}, "model", "unsupported"),
    ],
)
def test_what_a_route_can_not_do_is_refused_by_name(
    client: OpenAI, model: str, asked: Any, param: str, code: str | None
) -> None:
    given = {"messages": [user("Hello")], **asked}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, **given)
    assert refused.value.param == param
    assert code is None or refused.value.code == code
    assert refused.value.type == "invalid_request_error"


def test_what_asks_for_nothing_else_is_taken(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model="words", messages=[user("Hello")], temperature=1, n=1, tools=[], user="ada"
    )
    assert done.choices[0].message.content == "You said: Hello"
    assert done.usage is None


# Failures


def test_a_turn_that_has_run_is_sent_once(client: OpenAI, containers: list[Forgetful]) -> None:
    with pytest.raises(openai.APIStatusError) as failed:
        client.chat.completions.create(model="tools", messages=[user("/fail 500 once")])
    assert failed.value.status_code == 424
    assert failed.value.code == "model_error"
    assert len(sessions_of(containers, "/fail 500 once")) == 1


def test_a_stream_that_breaks_off_says_so(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="tools", messages=[user("/break 2")], stream=True)
    said: list[str | None] = []

    def hear() -> None:
        for chunk in stream:
            said.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)

    with pytest.raises(openai.APIError) as failed:
        hear()
    assert said == ["1 ", "2 "]
    assert failed.value.code == "model_error"


@pytest.mark.parametrize("streams", [False, True])
def test_a_model_that_turns_it_away_is_asked_again(
    client: OpenAI, platform: Process, containers: list[Forgetful], streams: bool
) -> None:
    """By OpenAI's client itself, since it has never been seen."""
    admin(platform, "/faults", error="ThrottlingException", times=2)
    done: Any = client.chat.completions.with_raw_response.create(
        model="once", messages=[user(f"patience {streams}")], stream=streams
    )
    assert done.retries_taken == 2
    assert done.parse()
    assert len(sessions_of(containers, f"patience {streams}")) == 1


KEY = {"Idempotency-Key": "once"}
"""Nobody says who they are."""


async def test_a_request_that_is_sent_again_gets_the_first_answer(
    served: Process, containers: list[Forgetful]
) -> None:
    """As where the connection breaks while the model thinks."""
    asked = {"model": "tools", "messages": [user("/slow 0.5 only once")]}
    url = f"{served.url}/openai/v1/chat/completions"
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        first = asyncio.create_task(
            http.post(url, json=asked, headers=KEY | {"x-stainless-retry-count": "0"})
        )
        async with asyncio.timeout(20 * UNIT):
            while not sessions_of(containers, "only once"):  # noqa: ASYNC110 - it is a process
                await asyncio.sleep(0.01)
        first.cancel()
        again = await http.post(url, json=asked, headers=KEY | {"x-stainless-retry-count": "1"})
        twice = await http.post(url, json=asked, headers=KEY | {"x-stainless-retry-count": "2"})
    assert again.status_code == 200, again.text
    assert again.json()["choices"][0]["message"]["content"] == "You said: only once"
    assert twice.json()["id"] == again.json()["id"]
    assert len(sessions_of(containers, "only once")) == 1


async def test_a_session_whose_request_was_sent_again_is_gone_on_with(
    served: Process, containers: list[Forgetful]
) -> None:
    """Whoever waits for its answer knows that it is to be kept: none closes it for the others."""
    messages = [user("/slow 0.5 in step")]
    asked = {"model": "tools", "messages": messages}
    url = f"{served.url}/openai/v1/chat/completions"
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        first = asyncio.create_task(
            http.post(url, json=asked, headers=KEY | {"x-stainless-retry-count": "0"})
        )
        async with asyncio.timeout(20 * UNIT):
            while not sessions_of(containers, "in step"):  # noqa: ASYNC110 - it is a process
                await asyncio.sleep(0.01)
        again = await http.post(url, json=asked, headers=KEY | {"x-stainless-retry-count": "1"})
        said = (await first).json()["choices"][0]["message"]
        assert again.json()["choices"][0]["message"] == said
        asked["messages"] = [*messages, said, user("Step on")]
        done = await http.post(url, json=asked)
        assert done.json()["choices"][0]["message"]["content"] == "You said: Step on"
        # Late: the first answer is read again when its conversation has gone on.
        asked["messages"] = messages
        late = await http.post(url, json=asked, headers=KEY | {"x-stainless-retry-count": "2"})
        assert late.json()["id"] == again.json()["id"]
        asked["messages"] = [*messages, said, user("Step back")]
        other = await http.post(url, json=asked)
        assert other.json()["choices"][0]["message"]["content"] == "You said: Step back", other.text
    (onward,), (branch,) = (sessions_of(containers, words) for words in ("Step on", "Step back"))
    assert branch != onward
    assert sorted(sessions_of(containers, "in step")) == sorted([onward, onward, branch])


async def test_who_leaves_a_stream_stops_it(served: Process) -> None:
    messages: list[Any] = [user("/count 5000")]
    async with AsyncOpenAI(base_url=f"{served.url}/openai/v1", api_key="any") as client:
        stream = await client.chat.completions.create(model="tools", messages=messages, stream=True)
        said = []
        async for chunk in stream:
            said += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            if len(said) == 3:
                break
        await stream.close()
        # The session that has heard as much goes on with it, which it could not were it busy.
        heard = {"role": "assistant", "content": "".join(said)}
        async with asyncio.timeout(20 * UNIT):
            messages += [heard, user("Thanks")]
            done = await client.chat.completions.create(model="tools", messages=messages)
        assert done.choices[0].message.content == "You said: Thanks"


# In Node

IN_NODE = """
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.URL, apiKey: "any" });
const told = {};

const models = [];
for await (const model of client.models.list()) models.push(model.id);
told.models = models;

const messages = [{ role: "user", content: "Node says hello" }];
const { data, response } = await client.chat.completions
  .create({ model: "tools", messages })
  .withResponse();
told.said = data.choices[0].message.content;
told.request = response.headers.get("x-request-id").startsWith("req_");

const tool = JSON.parse(process.env.TOOL);
const stream = client.chat.completions.stream({
  model: "tools",
  messages: [{ role: "user", content: "What is the weather in Graz?" }],
  tools: [tool],
  stream_options: { include_usage: true },
});
const final = await stream.finalChatCompletion();
told.call = final.choices[0].message.tool_calls[0].function;
told.used = final.usage.total_tokens > 0;

messages.push(data.choices[0].message, { role: "user", content: "/count 4" });
let counted = "";
const count = await client.chat.completions.create({ model: "tools", messages, stream: true });
for await (const chunk of count) counted += chunk.choices[0]?.delta?.content ?? "";
told.counted = counted;

const errors = [];
for (const body of [
  { model: "none", messages },
  { model: "words", messages, tools: [tool] },
  { model: "tools", messages: [{ role: "user", content: "/fail 500 in Node" }] },
]) {
  try {
    await client.chat.completions.create(body);
  } catch (error) {
    errors.push([error.constructor.name, error.status, error.code, error.param]);
  }
}
told.errors = errors;
console.log(JSON.stringify(told));
"""


def test_openais_client_in_node(
    served: Process, containers: list[Forgetful], tmp_path: Path
) -> None:
    url, tool = f"{served.url}/openai/v1", json.dumps(WEATHER)
    told = node.run(tmp_path, IN_NODE, URL=url, TOOL=tool)
    assert told == {
        "models": ["tools", "kind", "words", "history", "once", "raw"],
        "said": "You said: Node says hello",
        "request": True,
        "call": {"name": "get_weather", "arguments": '{"city": "Graz", "days": 6}'},
        "used": True,
        "counted": "1 2 3 4 ",
        "errors": [
            ["NotFoundError", 404, "model_not_found", "model"],
            ["BadRequestError", 400, "unsupported", "tools"],
            ["APIError", 424, "model_error", None],
        ],
    }
    assert len({*sessions_of(containers, "Node says hello")}) == 1
    assert len(sessions_of(containers, "/fail 500 in Node")) == 1, "it is not sent again"
