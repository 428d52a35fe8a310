"""What a chat route's model is sent."""

from typing import Any

import msgspec
import pytest

from gateway.session.policy import Policy
from gateway.transports.openai.composing import chat_message

TEMPLATE = {"messages": "$messages", "stream": "$stream", "model": "lora", "max_tokens": 9}
HELLO = {"role": "user", "content": "Hello"}


def body(request: dict[str, Any], *, stream: bool = False, **policy: Any) -> Any:
    fields: Any = {"route": "chat", "chat": True, "template": TEMPLATE, "streams": True, **policy}
    given = Policy(**fields)
    message = chat_message("r1", given, request, stream=stream)
    assert (message.id, message.verbatim) == ("r1", True)
    sent = msgspec.json.decode(bytes(message.json))  # type: ignore[arg-type]
    assert message.stream is sent["stream"]
    return sent


def test_the_routes_request_says_what_the_client_does_not() -> None:
    sent = body({"model": "chat", "messages": [HELLO], "temperature": 0.5, "tools": []})
    assert sent == {
        "messages": [HELLO],
        "stream": False,
        "model": "lora",
        "max_tokens": 9,
        "temperature": 0.5,
        "tools": [],
    }
    assert body({"messages": [HELLO], "max_tokens": 3})["max_tokens"] == 3
    assert "max_tokens" not in body({"messages": [HELLO], "max_completion_tokens": 3})
    plain = {"messages": "$messages", "user": "$text"}
    assert body({"model": "chat", "messages": [HELLO]}, template=plain) == {
        "messages": [HELLO],
        "stream": False,
    }


def test_a_route_that_does_not_stream_is_not_asked_to() -> None:
    assert body({"messages": [HELLO]}, stream=True)["stream"] is True
    assert body({"messages": [HELLO]}, stream=True, streams=False)["stream"] is False


@pytest.mark.parametrize(
    ("own", "first"),
    [
        (None, {"role": "system", "content": "Be kind."}),
        ("Be brief.", {"role": "system", "content": "Be kind.\n\nBe brief."}),
        (
            [{"type": "text", "text": "Be brief."}],
            {
                "role": "system",
                "content": [
                    {"type": "text", "text": "Be kind."},
                    {"type": "text", "text": "Be brief."},
                ],
            },
        ),
    ],
)
@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_the_operator_has_it_told_comes_first(role: str, own: Any, first: Any) -> None:
    told = [] if own is None else [{"role": role, "content": own}]
    assert body({"messages": [*told, HELLO]}, system="Be kind.")["messages"] == [first, HELLO]
