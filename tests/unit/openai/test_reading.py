"""A turn's log as a response and its events, judged by the specification's schema."""

import json
from typing import Any

import msgspec
import pytest

from gateway.errors import ErrorCode, Outcome
from gateway.protocol.messages import ErrorObject, MessageDelta, MessageDone
from gateway.transports.openai.reading import LOST, UNKNOWN, Reading
from gateway.transports.openai.requests import CreateResponse, parse
from gateway.transports.openai.resource import response_of
from tests.support.openresponses import check_response, check_stream

Json = dict[str, Any]

FAILED = ErrorObject(
    code=ErrorCode.MODEL_ERROR, message="It broke.", retryable=False, outcome=Outcome.INVOKED
)


def reading(*, chat: bool = True, **more: Any) -> Reading:
    request = parse(json.dumps({"model": "chat", "input": "hi", **more}), CreateResponse)
    return Reading(response_of(request, "resp_1", 1000.5, whole=True), chat=chat)


def delta(index: int, body: str | Json | bytes) -> MessageDelta:
    if isinstance(body, bytes):
        return MessageDelta(event=index + 2, id="r1", index=index, base64=body)
    text = body if isinstance(body, str) else json.dumps(body)
    return MessageDelta(event=index + 2, id="r1", index=index, text=text)


def done(deltas: int, **more: Any) -> MessageDone:
    given = {"status": "completed", "duration_ms": 1, **more}
    return MessageDone(event=99, id="r1", deltas=deltas, **given)


def chunk(finish: str | None = None, **said: Any) -> Json:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def events_of(reader: Reading, pieces: list[Any], **end: Any) -> list[Json]:
    """What is told of a turn, one piece at a time: it is the same as at once."""
    told = reader.take()
    for index, piece in enumerate(pieces):
        reader.read(delta(index, piece), 1002.0)
        check_response(json.loads(msgspec.json.encode(reader.response)))
        told += reader.take()
    reader.read(done(len(pieces), **end), 1003.0)
    told += reader.take()
    assert reader.is_over
    return [json.loads(msgspec.json.encode(event)) for event in told]


def test_what_is_read_again_is_not_said_again() -> None:
    reader = reading(chat=False)
    for number in (0, 1, 0, 1, 2):
        reader.read(delta(number, f"{number} "), 1002.0)
    reader.read(done(3), 1003.0)
    (message,) = check_stream(json.loads(msgspec.json.encode(reader.take())))["output"]
    assert message["content"][0]["text"] == "0 1 2 "


def test_words() -> None:
    response = check_stream(events_of(reading(chat=False), ["Hel", "lo"]))
    (message,) = response["output"]
    assert message["content"] == [
        {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    ]
    assert (response["status"], response["completed_at"]) == ("completed", 1003)
    assert response["usage"] is None


@pytest.mark.parametrize(
    "body", [{"text": "Hello"}, {"json": msgspec.Raw(b'"Hello"')}, {"base64": b"Hello"}]
)
def test_words_in_one_piece(body: Json) -> None:
    response = check_stream(events_of(reading(chat=False), [], **body))
    assert "Hello" in response["output"][0]["content"][0]["text"]


def test_no_words() -> None:
    response = check_stream(events_of(reading(chat=False), [b"\xff"]))
    assert response["status"] == "failed"
    response = check_stream(events_of(reading(chat=False), [], base64=b"\xff"))
    assert response["status"] == "failed"


def test_nothing_said() -> None:
    response = check_stream(events_of(reading(), [chunk("stop")]))
    assert (response["output"], response["status"]) == ([], "completed")


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def test_a_chat() -> None:
    pieces = [
        chunk(role="assistant", content=""),
        chunk(reasoning_content="Hm"),
        chunk(reasoning="m."),
        chunk(content="Hel"),
        chunk(content="lo \ud83d"),
        chunk("stop"),
        {"choices": [], "usage": USAGE},
    ]
    response = check_stream(events_of(reading(), pieces))
    thought, said = response["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hmm."}]
    assert said["content"][0]["text"] == "Hello �"
    assert response["usage"] == {
        "input_tokens": 5,
        "output_tokens": 7,
        "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
    }


def call(index: int, arguments: str, **more: Any) -> Json:
    return {"index": index, "function": {"arguments": arguments, **more.pop("f", {})}, **more}


def test_tool_calls() -> None:
    pieces = [
        chunk(content="Let me see."),
        chunk(tool_calls=[call(0, "", id="call_a", f={"name": "weather"})]),
        chunk(tool_calls=[call(0, '{"city"')]),
        chunk(tool_calls=[call(1, "{}", id="call_b", f={"name": "time"}), call(0, ': "Oslo"}')]),
        chunk("tool_calls"),
    ]
    events = events_of(reading(tools=[{"type": "function", "name": "weather"}]), pieces)
    response = check_stream(events)
    assert response["status"] == "completed"
    message, *calls = response["output"]
    assert message["content"][0]["text"] == "Let me see."
    assert [(each["call_id"], each["name"], each["arguments"]) for each in calls] == [
        ("call_a", "weather", '{"city": "Oslo"}'),
        ("call_b", "time", "{}"),
    ]
    assert len({item["id"] for item in response["output"]}) == 3


def test_tool_calls_as_few_containers_write_them() -> None:
    calls = [
        {"function": {"name": "f", "arguments": {"a": 1}}},
        {"id": 7, "function": {"name": "g"}},
    ]
    response = check_stream(events_of(reading(), [chunk(tool_calls=calls)]))
    first, second = response["output"]
    assert (first["call_id"][:5], first["arguments"]) == ("call_", '{"a":1}')
    assert (second["call_id"], second["arguments"]) == ("7", "")


def test_a_chat_in_one_piece() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_a", "function": {"name": "weather", "arguments": "{}"}}],
    }
    reply = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    response = check_stream(events_of(reading(), [], json=msgspec.Raw(json.dumps(reply).encode())))
    assert response["output"][0]["name"] == "weather"
    assert response["usage"]["total_tokens"] == 12


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_what_the_model_does_not_finish(finish: str, reason: str) -> None:
    response = check_stream(events_of(reading(), [chunk(content="He"), chunk(finish)]))
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": reason}
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None


def test_refusals() -> None:
    response = check_stream(events_of(reading(), [chunk(refusal="I "), chunk(refusal="can't.")]))
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "I can't."}]


def test_logprobs() -> None:
    token = {"token": "He", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    piece = {"choices": [{"delta": {"content": "He"}, "logprobs": {"content": [token]}}]}
    response = check_stream(events_of(reading(top_logprobs=1), [piece, piece]))
    (part,) = response["output"][0]["content"]
    assert part["logprobs"] == [{**token, "bytes": []}] * 2


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Outcome.INVOKED, "It broke."),
        (Outcome.UNKNOWN, "It broke. The model may have seen the request."),
        (Outcome.NOT_INVOKED, "It broke. The model has not seen the request."),
    ],
)
def test_failures(outcome: Outcome, told: str) -> None:
    reader = reading()
    failed = msgspec.structs.replace(FAILED, outcome=outcome)
    response = check_stream(events_of(reader, [chunk(content="He")], status="failed", error=failed))
    assert response["status"] == "failed"
    assert response["error"] == {"code": "model_error", "message": told}
    assert response["output"][0]["status"] == "incomplete"
    assert reader.failure is failed


def test_being_cancelled() -> None:
    response = check_stream(events_of(reading(), [chunk(content="He")], status="cancelled"))
    assert response["status"] == "cancelled"
    assert response["output"][0]["content"][0]["text"] == "He"


def test_a_log_that_is_not_whole() -> None:
    reader = reading()
    reader.read(delta(0, chunk(content="a")), 1.0)
    reader.read(delta(2, chunk(content="c")), 1.0)
    reader.read(done(3), 2.0)
    assert reader.response.error == LOST
    missing = reading()
    missing.read(done(1), 2.0)
    assert missing.response.error == LOST


def test_an_end_that_nobody_knows() -> None:
    reader = reading()
    reader.read(delta(0, chunk(content="a")), 1.0)
    reader.lose(UNKNOWN, 2.0)
    reader.lose(LOST, 2.0)
    reader.read(done(1), 3.0)
    response = check_stream([json.loads(msgspec.json.encode(event)) for event in reader.take()])
    assert response["error"]["message"] == UNKNOWN.message


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "[]",
        '{"choices": [1]}',
        '{"choices": [{"delta": {"content": 5}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}',
        '{"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{}]}}]}',
        b"\xff",
    ],
)
def test_records_that_are_none(body: str | bytes) -> None:
    response = check_stream(events_of(reading(), [body, chunk(content="x")]))
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"


def test_what_a_request_says_is_shown() -> None:
    asked: Json = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "previous_response_id": "resp_0",
        "max_output_tokens": 7,
        "store": False,
    }
    response = check_stream(events_of(reading(**asked), [chunk(content="x")]))
    for name in ("instructions", "temperature", "tool_choice", "metadata", "previous_response_id"):
        assert response[name] == asked[name]
    assert response["text"]["format"]["schema"] == {"type": "object"}
    assert response["tools"][0]["strict"] is None
    assert (response["max_output_tokens"], response["store"]) == (7, False)
    shown = check_stream(events_of(reading(conversation="conv_1"), []))
    assert shown["conversation"] == {"id": "conv_1"}
    assert "conversation" not in response
    plain = check_stream(events_of(reading(text={"format": {"type": "json_schema"}}), []))
    assert plain["text"]["format"] == {"type": "json_object"}
