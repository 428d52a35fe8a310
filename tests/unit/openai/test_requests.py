"""Requests for responses: what is taken, and what is refused by the name of its parameter."""

import json
from typing import Any

import pytest

from gateway.session.events import Words
from gateway.transports.openai.errors import Invalid
from gateway.transports.openai.items import Item, Message, taken, words_of
from gateway.transports.openai.requests import CreateResponse, check, parse
from gateway.transports.openai.saying import (
    chat_request,
    check_calls,
    newest_words,
    spoken,
)

Json = dict[str, Any]


def asked(given: Any = "hi", **more: Any) -> CreateResponse:
    return parse(json.dumps({"model": "chat", "input": given, **more}), CreateResponse)


def items(*given: Json) -> list[Item]:
    request = asked(list(given))
    assert isinstance(request.input, list)
    return taken(request.input, "resp_1")


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def assistant(content: Any) -> Json:
    return {"type": "message", "role": "assistant", "content": content}


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "64 degrees"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": "x"}, "model", "missing_required_parameter"),
        ({"model": "a", "prompt": {}}, "prompt", "unknown_parameter"),
        ({"model": 1}, "model", "invalid_value"),
        ({"model": "a", "temperature": 3}, "temperature", "invalid_value"),
        ({"model": "a", "tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported"),
        ({"model": "a", "input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", None),
        (
            {"model": "a", "input": [user([{"type": "input_audio"}])]},
            "input[0].content[0].type",
            None,
        ),
        (
            {"model": "a", "input": [user([{"type": "input_image", "file_id": "f"}])]},
            "input[0].content[0].image_url",
            "missing_required_parameter",
        ),
        (
            {"model": "a", "text": {"format": {"type": "grammar"}}},
            "text.format.type",
            "unsupported",
        ),
        ({"model": "a", "text": {"a": 1}}, "text.a", "unknown_parameter"),
        ([], None, "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(body: Any, param: str | None, code: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        parse(json.dumps(body), CreateResponse)
    assert caught.value.param == param
    assert code is None or caught.value.kind.code == code
    assert param is None or param in caught.value.text


def test_bodies_that_are_none() -> None:
    for body in (b"{", b"\xff", b"[" * 2000):
        with pytest.raises(Invalid, match="not valid JSON"):
            parse(body, CreateResponse)
    with pytest.raises(Invalid, match="too many values"):
        parse("[" + "1," * 200_000 + "1]", CreateResponse)


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("previous_response_id", {"previous_response_id": "a", "conversation": "b"}),
        ("background", {"background": True, "store": False}),
        ("include", {"include": ["file_search_call.results"]}),
        ("text.verbosity", {"text": {"verbosity": "low"}}),
        ("reasoning.summary", {"reasoning": {"summary": "detailed"}}),
        ("stream_options.include_obfuscation", {"stream_options": {"include_obfuscation": True}}),
        ("tool_choice", {"tool_choice": {"type": "function", "name": "f"}}),
        (
            "tool_choice",
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "tools": [{"type": "function", "name": "f"}],
                }
            },
        ),
    ],
)
def test_what_no_route_can_do(param: str, more: Json) -> None:
    with pytest.raises(Invalid) as caught:
        check(asked(**more), chat=True, whole=True)
    assert caught.value.param == param


WORDLESS = {
    "instructions": "Be brief.",
    "tools": [{"type": "function", "name": "f"}],
    "max_output_tokens": 16,
    "temperature": 0.5,
    "top_p": 0.5,
    "presence_penalty": 1,
    "frequency_penalty": 1,
    "top_logprobs": 1,
    "reasoning": {"effort": "low"},
    "tool_choice": "required",
    "text": {"format": {"type": "json_object"}},
    "include": ["message.output_text.logprobs"],
}


@pytest.mark.parametrize("name", WORDLESS)
def test_what_a_route_of_words_can_not_do(name: str) -> None:
    request = asked(**{name: WORDLESS[name]})
    check(request, chat=True, whole=True)
    with pytest.raises(Invalid) as caught:
        check(request, chat=False, whole=True)
    param = caught.value.param
    assert param is not None
    assert param.startswith(name)


def test_truncation() -> None:
    for truncation in (None, "auto"):
        check(asked(truncation=truncation), chat=False, whole=False)
    check(asked(truncation="disabled"), chat=False, whole=True)
    with pytest.raises(Invalid, match="oldest turns"):
        check(asked(truncation="disabled"), chat=False, whole=False)


def test_what_is_taken() -> None:
    everything = {
        "store": None,
        "include": ["reasoning.encrypted_content"],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "service_tier": "auto",
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "user": "u",
        "max_tool_calls": 3,
        "stream_options": {"include_obfuscation": False},
        "conversation": {"id": "conv_1"},
    }
    request = asked(**everything)
    check(request, chat=False, whole=True)
    assert request.conversation_id == "conv_1"
    assert asked(conversation="conv_2").conversation_id == "conv_2"


def test_items_are_made_whole() -> None:
    whole = items(
        user("hi"),
        user([{"type": "input_text", "text": "see"}, {**IMAGE, "detail": None}]),
        assistant("yes"),
        assistant([{"type": "output_text", "text": "yes", "annotations": [], "phase": 1}]),
        {**CALL, "id": "theirs", "status": None},
        {**OUTPUT, "output": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": None, "created_by": "x"},
        assistant([{"type": "output_text", "text": "yes", "annotations": None, "logprobs": None}]),
    )
    assert len({item.id for item in whole}) == 8
    assert all(item.status == "completed" for item in whole)
    assert whole == taken(whole, "resp_1")
    assert [item.id for item in whole] != [item.id for item in taken(whole, "resp_2")]
    assert "resp" not in str([item.id for item in whole])
    assert isinstance(whole[2], Message)
    assert words_of(whole[2].content) == "yes"
    (said,) = taken("hi", "resp_1")
    assert said == whole[0]


def test_a_chat_is_composed() -> None:
    request = asked(
        instructions="Be brief.",
        temperature=0.5,
        max_output_tokens=9,
        top_logprobs=2,
        reasoning={"effort": "low"},
        parallel_tool_calls=False,
        tools=[
            {"type": "function", "name": "f", "description": "d", "parameters": {"a": 1}},
            {"type": "function", "name": "g", "strict": True},
        ],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}},
    )
    said = items(
        {"role": "developer", "content": "Rhyme."},
        user([{"type": "input_text", "text": "see"}, IMAGE]),
        {"type": "reasoning", "summary": []},
        assistant("Let me look."),
        CALL,
        {**CALL, "call_id": "c2"},
        OUTPUT,
        {**OUTPUT, "call_id": "c2"},
        CALL,
        user([{"type": "input_file", "file_data": "data:x", "filename": "f.txt"}]),
    )
    function = {"name": "f", "arguments": "{}"}
    assert chat_request(request, said) == {
        "messages": [
            {"role": "system", "content": "Be brief.\n\nRhyme."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {
                        "type": "image_url",
                        "image_url": {"url": IMAGE["image_url"], "detail": "auto"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": function},
                    {"id": "c2", "type": "function", "function": function},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "64 degrees"},
            {"role": "tool", "tool_call_id": "c2", "content": "64 degrees"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {
                "role": "user",
                "content": [{"type": "file", "file": {"file_data": "data:x", "filename": "f.txt"}}],
            },
        ],
        "temperature": 0.5,
        "max_tokens": 9,
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {}, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": {"a": 1}},
            },
            {"type": "function", "function": {"name": "g", "strict": True}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }


def test_tools_that_are_not_allowed_are_not_offered() -> None:
    request = asked(
        tools=[{"type": "function", "name": name} for name in ("f", "g")],
        tool_choice={
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "g"}],
        },
    )
    body = chat_request(request, items(user("hi")))
    assert body["tools"] == [{"type": "function", "function": {"name": "g"}}]
    assert body["tool_choice"] == "required"


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "json_schema"}])
def test_any_json(form: Json) -> None:
    body = chat_request(asked(text={"format": form}), items(user("hi")))
    assert body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    "item",
    [
        {**OUTPUT, "output": [IMAGE]},
        {"role": "system", "content": [IMAGE]},
    ],
)
def test_what_no_chat_can_hold(item: Json) -> None:
    with pytest.raises(Invalid, match="only text"):
        chat_request(asked(), items(item))


def test_outputs_belong_to_calls() -> None:
    check_calls(items(CALL, OUTPUT))
    for given in ([OUTPUT], [OUTPUT, CALL], [CALL, {**OUTPUT, "call_id": "c2"}]):
        with pytest.raises(Invalid, match="No function call") as caught:
            check_calls(items(*given))
        assert caught.value.param == "input"


def test_words() -> None:
    said = items(user("a"), assistant("b"), user("c"), user([{"type": "input_text", "text": "d"}]))
    before, words = newest_words(said)
    assert (before, words) == (said[:2], "c\n\nd")
    assert spoken(before) == (Words("a", "b"),)
    assert newest_words(said[2:]) == ([], "c\n\nd")
    assert spoken(said) == (Words("a", "b"), Words("c\n\nd", ""))
    more = items(assistant("a"), assistant("b"), user("c"), {"type": "reasoning"}, assistant("d"))
    assert spoken(more) == (Words("", "a\n\nb"), Words("c", "d"))
    for given, match in (
        (items(user("a"), assistant("b")), "must be a message of the user"),
        (items(user([IMAGE])), "text only"),
        (items(CALL), "must be a message of the user"),
    ):
        with pytest.raises(Invalid, match=match) as caught:
            newest_words(given)
        assert caught.value.param == "input"
    for told, match in (
        ([CALL], "text only"),
        ([{"role": "system", "content": "x"}], "configuration"),
    ):
        with pytest.raises(Invalid, match=match):
            spoken(items(*told))
