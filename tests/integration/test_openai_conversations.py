"""Conversations by OpenAI's own client."""

import threading
import time
from typing import Any

import openai
import pytest

from tests.support.openaisdk import checked, client, streamed
from tests.support.responding import Chat, session_of


def said(api: openai.OpenAI, conversation: str, **more: Any) -> list[str]:
    """What is said in a conversation, the oldest first."""
    pages: Any = api.conversations.items.list(conversation, order="asc", **more)
    return [item.content[0].text for item in pages]


def test_a_conversation(sdk: openai.OpenAI, chat: Chat) -> None:
    first: Any = {"role": "user", "content": "My name is Ada."}
    made = sdk.conversations.create(items=[first], metadata={"topic": "names"})
    assert (made.object, made.metadata) == ("conversation", {"topic": "names"})
    assert sdk.conversations.retrieve(made.id) == made
    one = checked(sdk.responses.create(model="chat", input="conv one", conversation=made.id))
    assert one.conversation is not None
    assert one.conversation.id == made.id
    two, _ = streamed(
        sdk.responses.create(
            model="chat", input="conv two", conversation={"id": made.id}, stream=True
        )
    )
    assert session_of(one) == session_of(two["id"])
    note: Any = {"role": "user", "content": "By the way."}
    added = sdk.conversations.items.create(made.id, items=[note])
    three = sdk.responses.create(model="chat", input="conv three", conversation=made.id)
    everything = [
        "My name is Ada.",
        "conv one",
        "[Be kind.] You said: conv one",
        "conv two",
        "[Be kind.] You said: conv two",
        "By the way.",
        "conv three",
        "[Be kind.] You said: conv three",
    ]
    assert said(sdk, made.id) == said(sdk, made.id, limit=3) == everything
    messages = chat.turn("conv three")["body"]["messages"]
    assert [each["content"] for each in messages] == ["Be kind.", *everything[:-1]]
    assert len({session_of(each) for each in (one, three)}) == 1
    item = added.data[0]
    assert sdk.conversations.items.retrieve(item.id, conversation_id=made.id) == item  # type: ignore[arg-type]
    branch = sdk.responses.create(model="chat", input="conv branch", previous_response_id=one.id)
    assert session_of(branch) != session_of(one)
    assert said(sdk, made.id) == everything
    sdk.conversations.items.delete(item.id, conversation_id=made.id)  # type: ignore[arg-type]
    four = sdk.responses.create(model="chat", input="conv four", conversation=made.id)
    assert session_of(four) != session_of(one), "which has heard what was deleted"
    assert "By the way." not in str(chat.turn("conv four")["body"])
    updated = sdk.conversations.update(made.id, metadata={"topic": "other"})
    assert sdk.conversations.retrieve(made.id) == updated
    assert updated.metadata == {"topic": "other"}
    assert sdk.conversations.delete(made.id).deleted
    for gone in (
        lambda: sdk.conversations.retrieve(made.id),
        lambda: sdk.conversations.items.list(made.id),
        lambda: sdk.responses.create(model="chat", input="x", conversation=made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            gone()


def test_what_fails_is_not_said(sdk: openai.OpenAI) -> None:
    made = sdk.conversations.create()
    with pytest.raises(openai.APIStatusError):
        sdk.responses.create(model="chat", input="/fail 500", conversation=made.id)
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(
            model="chat",
            conversation=made.id,
            input=[{"type": "function_call_output", "call_id": "x", "output": "y"}],
        )
    assert said(sdk, made.id) == []
    sdk.responses.create(model="chat", input="fine", conversation=made.id)
    assert said(sdk, made.id) == ["fine", "[Be kind.] You said: fine"]


def test_one_response_at_a_time(sdk: openai.OpenAI, chat: Chat) -> None:
    made = sdk.conversations.create()
    running = sdk.responses.create(
        model="chat", input="/count 2000", conversation=made.id, background=True
    )
    asked: Any = {"model": "chat", "conversation": made.id}
    note: Any = {"role": "user", "content": "note"}
    for locked in (
        lambda: sdk.responses.create(**asked, input="x"),
        lambda: sdk.conversations.items.create(made.id, items=[note]),
    ):
        with pytest.raises(openai.ConflictError) as caught:
            locked()
        assert caught.value.code == "conversation_locked"
        assert caught.value.response.headers["x-should-retry"] == "true"
    found = list[str]()

    def wait() -> None:
        with client(chat.url, max_retries=20) as patient:
            found.append(patient.responses.create(**asked, input="after it").output_text)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    sdk.responses.cancel(running.id)
    thread.join()
    assert found == ["[Be kind.] You said: after it"]
    assert said(sdk, made.id)[0] == "/count 2000"
    assert said(sdk, made.id)[-2:] == ["after it", *found]


def test_words_in_a_conversation(wordy: openai.OpenAI) -> None:
    made = wordy.conversations.create()
    one = wordy.responses.create(model="words", input="My name is Ada.", conversation=made.id)
    asked: Any = {"input": "What is my name?", "conversation": made.id}
    two = wordy.responses.create(model="words", **asked)
    assert "Ada" in two.output_text
    assert session_of(one) == session_of(two)
    other = wordy.responses.create(model="told", **asked)
    assert "Ada" in other.output_text
    assert session_of(other) != session_of(one)
    note: Any = {"role": "user", "content": "My name is Bob."}
    wordy.conversations.items.create(made.id, items=[note])
    with pytest.raises(openai.BadRequestError) as caught:
        wordy.responses.create(model="words", **asked)
    assert caught.value.param == "conversation"


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("metadata[...]", {"metadata": {"a": 1}}),
        ("items[0].type", {"items": [{"type": "x"}]}),
        ("extra", {"extra_body": {"extra": 1}}),
    ],
)
def test_what_is_wrong(sdk: openai.OpenAI, param: str, more: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.conversations.create(**more)
    assert caught.value.param == param
