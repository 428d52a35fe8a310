"""What a session's log says of a turn, as a completion and as chunks."""

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.errors import ErrorCode, Outcome
from gateway.protocol.messages import ErrorObject, MessageDelta, MessageDone
from gateway.transports.openai.completing import NO_CHAT, NOT_KEPT, NOT_KNOWN, Completion

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def completion(*, chat: bool = True) -> Completion:
    return Completion("chatcmpl-1", "tools", 1000, chat=chat)


def delta(index: int, said: Any, **fields: Any) -> MessageDelta:
    if isinstance(said, bytes):
        return MessageDelta(event=1, id="r1", index=index, base64=said)
    text = said if isinstance(said, str) else json.dumps(said)
    return MessageDelta(event=1, id="r1", index=index, text=text, **fields)


def done(deltas: int = 0, **fields: Any) -> MessageDone:
    return MessageDone(
        event=1, id="r1", duration_ms=0, deltas=deltas, **{"status": "completed", **fields}
    )


def chunk(delta: Any, reason: str | None = None, index: int = 0, **fields: Any) -> Any:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return {"id": "x", "model": "y", "created": 1, "choices": [choice], **fields}


def call(index: int | None = 0, **function: Any) -> Any:
    place = {} if index is None else {"index": index}
    return {"tool_calls": [{**place, "function": function}]}


def test_what_is_read_again_is_not_said_again() -> None:
    answer = completion(chat=False)
    for number in (0, 1, 0, 1, 2):
        answer.read(delta(number, f"{number} "))
    answer.read(done(3))
    assert answer.failure is None
    assert answer.message is not None
    assert answer.message["content"] == "0 1 2 "


def test_chunks_are_the_models_own() -> None:
    answer = completion()
    told = [
        chunk({"role": "assistant", "content": ""}, extra=1),
        chunk({"content": "Hel"}),
        chunk({"content": "other"}, index=1),
        chunk({"content": "lo"}, "stop"),
        {"choices": [], "usage": USAGE},
    ]
    chunks = [
        each for number, record in enumerate(told) for each in answer.read(delta(number, record))
    ]
    assert [each["choices"] for each in chunks] == [each["choices"] for each in told]
    assert {(each["id"], each["model"], each["created"]) for each in chunks} == {
        ("chatcmpl-1", "tools", 1000)
    }
    assert (chunks[0]["extra"], chunks[-1]["usage"]) == (1, USAGE)
    assert answer.has_begun
    assert answer.read(done(5)) == []
    assert (answer.is_over, answer.failure) == (True, None)
    assert answer.message == {"role": "assistant", "content": "Hello", "tool_calls": []}
    assert answer.read(delta(5, chunk({"content": "late"}))) == []


def test_calls_come_in_pieces() -> None:
    answer = completion()
    begun = {"index": 1, "id": "c2", "type": "function", "function": {"name": "g"}}
    told = [
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]},
        call(0, arguments='{"a"'),
        {"tool_calls": [begun]},
        call(0, arguments=": 1}"),
        call(1, arguments="{}"),
    ]
    for number, each in enumerate(told):
        answer.read(delta(number, chunk(each)))
    answer.read(done(5))
    assert answer.message is not None
    assert answer.message["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_a_completion_in_one_piece() -> None:
    answer = completion()
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    whole = {"id": "x", "object": "y", "model": "z", "choices": [choice], "usage": USAGE}
    chunks = answer.read(done(text=json.dumps(whole)))
    assert answer.whole == {
        **whole,
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1000,
        "model": "tools",
    }
    assert answer.message == choice["message"]
    assert [each["choices"] for each in chunks] == [
        [{"index": 0, "delta": choice["message"], "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [],
    ]
    assert chunks[-1]["usage"] == USAGE
    assert {each["object"] for each in chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize("form", ["json", "base64"])
def test_whatever_the_route_makes_of_json(form: str) -> None:
    made = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    body = json.dumps({"choices": [{"message": {"tool_calls": [made]}}]}).encode()
    answer = completion()
    given: Any = {form: Raw(body) if form == "json" else body}
    chunks = answer.read(done(**given))
    assert answer.whole is not None
    assert chunks[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **made}]
    assert len(chunks) == 2


def test_words_in_parts() -> None:
    answer = completion(chat=False)
    chunks = [*answer.read(delta(0, "Hel")), *answer.read(delta(1, "lo")), *answer.read(done(2))]
    said = [each["choices"][0] for each in chunks]
    assert [each["delta"] for each in said] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [each["finish_reason"] for each in said] == [None, None, None, "stop"]
    assert answer.whole is not None
    assert answer.whole["choices"][0]["message"]["content"] == "Hello"
    assert answer.message is not None
    assert answer.message["content"] == "Hello"


def test_words_in_one_piece() -> None:
    answer = completion(chat=False)
    chunks = answer.read(done(text="Hello", dropped_turns=2))
    assert answer.dropped_turns == 2
    assert answer.whole is not None
    assert "usage" not in answer.whole
    assert chunks[0]["choices"][0]["delta"]["content"] == "Hello"


@pytest.mark.parametrize(
    "message",
    [
        delta(0, "no JSON"),
        delta(0, b"\xff"),
        delta(0, "[]"),
        delta(0, {}),
        delta(0, {"choices": [1]}),
        delta(0, {"choices": [{"delta": 1}]}),
        delta(0, {"choices": [{"delta": {"tool_calls": 1}}]}),
        delta(0, {"choices": [{"delta": {"tool_calls": [1]}}]}),
        delta(0, {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": 1}}]}}]}),
        delta(0, {"choices": [{"delta": {"tool_calls": [{"index": []}]}}]}),
        done(text="no JSON"),
        done(text='{"choices": []}'),
        done(text='{"choices": [{}]}'),
        done(text='{"choices": [{"message": 1}]}'),
        done(),
    ],
)
def test_what_is_no_chat(message: MessageDelta | MessageDone) -> None:
    answer = completion()
    assert answer.read(message) == []
    assert (answer.is_over, answer.failure) == (True, NO_CHAT)


@pytest.mark.parametrize("message", [delta(0, b"\xff"), done(base64=b"\xff"), done()])
def test_what_is_no_words(message: MessageDelta | MessageDone) -> None:
    answer = completion(chat=False)
    assert answer.read(message) == []
    assert answer.failure is NO_CHAT


@pytest.mark.parametrize("message", [delta(1, chunk({"content": "x"})), done(1)])
def test_what_is_not_whole(message: MessageDelta | MessageDone) -> None:
    answer = completion()
    assert answer.read(message) == []
    assert answer.failure is NOT_KEPT


def test_half_a_character_is_repaired() -> None:
    answer = completion()
    (told,) = answer.read(delta(0, '{"choices": [{"delta": {"content": "caf\\u00e9 \\ud83d"}}]}'))
    assert json.dumps(told, ensure_ascii=False).encode()
    assert told["choices"][0]["delta"]["content"] == "café \ufffd"


def test_failures() -> None:
    error = ErrorObject(
        code=ErrorCode.TIMEOUT, message="Late.", retryable=False, outcome=Outcome.UNKNOWN
    )
    answer = completion()
    answer.read(delta(0, chunk({"content": "Hel"})))
    assert answer.read(done(1, status="failed", error=error)) == []
    assert answer.failure is error
    assert answer.message is not None
    stopped = completion()
    stopped.read(done(status="cancelled", outcome=Outcome.INVOKED))
    assert stopped.failure is not None
    assert stopped.message is None
    lost = completion()
    lost.lose(NOT_KNOWN)
    lost.lose(NOT_KEPT)
    assert lost.failure is NOT_KNOWN
