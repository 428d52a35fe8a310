"""What a request for a chat completion asks for, and what tells its conversation apart."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.events import Words
from gateway.session.policy import Policy
from gateway.transports.openai.chats import (
    Chat,
    check_words,
    digest_of,
    newest_words,
    read_chat,
    words_before,
)
from gateway.transports.openai.composing import chat_message
from gateway.transports.openai.errors import Invalid

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def read(**fields: Any) -> Chat:
    return read_chat(json.dumps({"model": "chat", "messages": [user("x")], **fields}).encode())


def refused(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(Invalid) as caught:
        check_words(read(**fields))
    return caught.value.param, caught.value.kind.code


def test_the_model_gets_all_but_what_is_the_gateways_own() -> None:
    chat = read(
        stream=True,
        store=False,
        metadata={},
        prompt_cache_key="k",
        temperature=0.5,
        top_p=None,
        unheard_of=[1],
        stream_options={"include_usage": True},
    )
    assert chat.body == {
        "messages": [user("x")],
        "temperature": 0.5,
        "unheard_of": [1],
        "stream_options": {"include_usage": True},
    }
    assert (chat.model, chat.streams, chat.includes_usage, chat.cache_key) == (
        "chat",
        True,
        True,
        "k",
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"model": "a"', None),
        (b'{"model": "a"}', "messages"),
        (b'{"messages": [{"role": "user"}]}', "model"),
        (b'{"model": "a", "messages": []}', "messages"),
        (b'{"model": "a", "messages": ["x"]}', "messages[0]"),
        (b'{"model": "a", "messages": [{"role": 1}]}', "messages[0].role"),
        (b'{"model": "a", "messages": [{"role": "user"}], "stream": 1}', "stream"),
        (b'{"model": "a", "messages": [{"role": "user"}], "store": true}', "store"),
        (b'{"model": "a", "messages": [{"role": "user"}], "metadata": {"a": "b"}}', "metadata"),
        (
            b'{"model": "a", "messages": [{"role": "user"}],'
            b' "stream_options": {"include_obfuscation": true}}',
            "stream_options.include_obfuscation",
        ),
    ],
)
def test_what_is_no_request(body: bytes, param: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        read_chat(body)
    assert caught.value.param == param
    assert caught.value.kind.status == 400


# Words


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [{}]}, "tools"),
        ({"temperature": 0}, "temperature"),
        ({"n": 2}, "n"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    ],
)
def test_what_a_model_of_words_can_not_do(asked: Any, param: str) -> None:
    assert refused(**asked) == (param, "unsupported")


def test_what_asks_for_nothing_else() -> None:
    check_words(
        read(
            tools=[],
            temperature=1,
            n=1,
            tool_choice="auto",
            response_format={"type": "text"},
            stop=None,
            user="ada",
            stream_options={"include_usage": False},
        )
    )


def test_words_are_what_the_user_has_said_last() -> None:
    said = [user("one"), assistant("1"), user("two"), user([{"type": "text", "text": "three"}])]
    chat = read(messages=said)
    assert newest_words(chat) == "two\n\nthree"
    assert words_before(chat) == (Words("one", "1"),)
    assert chat.before == said[:2]
    assert words_before(read()) == ()


def test_what_was_said_before_is_told_in_turns() -> None:
    said = [
        assistant("Welcome."),
        user("one"),
        user("more"),
        assistant("1"),
        assistant([{"type": "text", "text": "and "}, {"type": "refusal", "refusal": "no"}]),
        user("two"),
        assistant(None),
        user("x"),
    ]
    assert words_before(read(messages=said)) == (
        Words("", "Welcome."),
        Words("one\n\nmore", "1\n\nand no"),
        Words("two", ""),
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user("a"), assistant("b")], "messages"),
        ([{"role": "system", "content": "x"}], "messages[0]"),
        ([{"role": "tool", "content": "x"}], "messages[0]"),
        ([user([{"type": "image_url", "image_url": {"url": "x"}}])], "messages[0].content"),
        ([{**user("a"), "name": "Ada"}], "messages[0].name"),
        ([user("a"), {"role": "user", "audio": {"id": "x"}}], "messages[1].audio"),
        ([{"role": "user", "function_call": {"name": "x"}}], "messages[0]"),
        ([user(5)], "messages[0].content"),
        ([user("a"), assistant("b"), user(["c"])], "messages[2].content"),
    ],
)
def test_what_is_no_words(messages: Any, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        newest_words(read(messages=messages))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "developer", "content": "x"}, "messages[0]"),
        (assistant(None, tool_calls=[CALL]), "messages[0]"),
    ],
)
def test_what_a_model_of_words_can_not_be_told(message: Any, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        words_before(read(messages=[message, assistant("a"), user("b")]))
    assert caught.value.param == param


# Digests


def test_a_conversation_is_known_however_it_is_written_down() -> None:
    first = [
        {"role": "developer", "content": "Be brief."},
        user("one "),
        assistant(None, tool_calls=[CALL], refusal=None, annotations=[]),
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "ok"}]},
        assistant("done"),
    ]
    other = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}], "name": "x"},
        user([{"type": "text", "text": "one"}]),
        assistant("", tool_calls=[{**CALL, "index": 0, "function": {
            "arguments": '{"a":1}', "name": "f"}}]),
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
        assistant("done\n", tool_calls=None),
    ]  # fmt: skip
    assert digest_of("ada", "chat", first) == digest_of("ada", "chat", other)


ONE = [user("one"), assistant("1")]
OTHERS: list[tuple[str, str, Any]] = [
    ("ada", "chat", ONE),
    ("bob", "chat", ONE),
    ("ada", "other", ONE),
    ("ada", "chat", ONE[:1]),
    ("ada", "chat", [*ONE, user("one")]),
    ("ada", "chat", [user("one"), user("1")]),
    ("ada", "chat", [assistant("one"), user("1")]),
    ("ada", "chat", [user("one1"), assistant("")]),
    ("ada", "chat", [user("one"), assistant("1", tool_calls=[CALL])]),
    ("ada", "chat", [user("one"), assistant("1", tool_calls=[{**CALL, "id": "c2"}])]),
    ("ada", "chat", [user("one"), assistant("1", tool_calls=["x"])]),
    ("ada", "chat", [user("one"), assistant("1", tool_calls=[{"function": {"arguments": "{"}}])]),
    ("ada", "chat", [user("one"), assistant("1", tool_calls=[{"function": {"arguments": 1}}])]),
    ("ada", "chat", [user([{"type": "image_url", "image_url": {"url": "x"}}]), assistant("1")]),
    ("ada", "chat", [user([{"type": "image_url", "image_url": {"url": "y"}}]), assistant("1")]),
]


def test_others_are_others() -> None:
    assert len({digest_of(*other) for other in OTHERS}) == len(OTHERS)


def test_it_prints_nothing_of_what_was_said() -> None:
    assert "secret" not in repr(read(messages=[user("secret")], prompt_cache_key="secret"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "tool_calls", "function", "id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "x"])},
        optional={"content": JSON, "tool_calls": JSON, "tool_call_id": JSON, "name": JSON},
    ),
    max_size=4,
)


@given(MESSAGES, st.dictionaries(st.sampled_from(["tools", "n", "stream", "x"]), JSON, max_size=3))
def test_whatever_is_asked_is_refused_or_can_be_sent(messages: Any, more: Any) -> None:
    try:
        chat = read(messages=messages, **more)
    except Invalid:
        return
    assert digest_of("ada", "chat", chat.messages) == digest_of("ada", "chat", chat.messages)
    policy = Policy(route="chat", chat=True, template={"messages": "$messages"}, system="x")
    with contextlib.suppress(Invalid):
        chat_message("r1", policy, chat.body, stream=True)
    with contextlib.suppress(Invalid):
        check_words(chat)
        newest_words(chat)
        words_before(chat)
