"""The models behind the local SageMaker: their memory, their dialects and their traps."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from gateway.local.builtin import MAX_FACTS, BuiltinModel
from gateway.local.containers import (
    NEW_SESSION_ID,
    SESSION_ID,
    ContainerReply,
    ContainerUnreachable,
    whole,
)
from gateway.local.language import Context, LanguageModel, _limited, _prompt
from gateway.local.llama import (
    CONTEXT_TOKENS,
    MAX_TOKENS,
    SLOTS,
    LanguageModelUnavailable,
    Llama,
    find_weights,
)
from tests.support.timing import UNIT

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}


class Reply(Struct):
    """A container's reply, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def read(reply: ContainerReply) -> Reply:
    return Reply(reply.status, reply.headers, await whole(reply.body))


class Talk:
    """A session of a model, and its clock."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.model = BuiltinModel("i-1", clock=lambda: self.now, **options)
        self.session = ""

    async def open(self, body: bytes = b'{"requestType":"NEW_SESSION"}') -> Reply:
        reply = await read(await self.model.invoke({SESSION_ID: "NEW_SESSION", **JSON}, body))
        self.session = reply.headers.get(NEW_SESSION_ID, "").partition(";")[0]
        return reply

    async def send(self, body: str, headers: Any = TEXT) -> Reply:
        return await read(
            await self.model.invoke({SESSION_ID: self.session, **headers}, body.encode())
        )

    async def say(self, text: str) -> str:
        return (await self.send(text)).body.decode()


async def test_it_remembers_and_shows_it() -> None:
    talk = Talk()
    await talk.open()
    assert "I know nothing" in await talk.say("Who am I?")
    assert "Hello Ada Lovelace" in await talk.say("Hi, my name is Ada Lovelace.")
    assert "I will remember that the sky is green." in await talk.say("Remember the sky is green!")
    answer = await talk.say("What do you know?")
    assert answer == (
        "Turn 4 on instance i-1. Your name is Ada Lovelace. You told me that the sky is green."
    )
    assert "/sleep" in await talk.say("help")
    assert "I hear you, Ada Lovelace; I know 1" in await talk.say("Hm.")
    await talk.open()
    assert "stranger" in await talk.say("Hm.")


async def test_its_memory_is_bounded() -> None:
    talk = Talk()
    await talk.open()
    for number in range(MAX_FACTS):
        await talk.say(f"remember that {number}")
    assert "can't remember any more" in await talk.say("remember that it is full")


async def test_it_takes_the_shapes_that_models_are_sent() -> None:
    talk = Talk()
    await talk.open()
    for body in (
        {"text": "my name is A"},
        {"inputs": "my name is A"},
        {"prompt": "my name is A"},
        {"messages": [{"role": "user", "content": "my name is A"}]},
        "my name is A",
    ):
        reply = await talk.send(msgspec.json.encode(body).decode(), JSON)
        assert b"Hello A, I will remember" in reply.body
    for odd in ("[]", "{", "1"):
        assert (await talk.send(odd, JSON)).status == 200
    binary = await talk.model.invoke({SESSION_ID: talk.session, **TEXT}, b"\xff")
    assert binary.body == b"\xff"


async def test_after_the_expiry_it_is_stateless_once_and_then_lost() -> None:
    talk = Talk(session_seconds=10)
    await talk.open()
    talk.now += 10
    assert "Stateless" in await talk.say("hi")
    lost = await talk.send("hi")
    assert (lost.status, b"session not found" in lost.body) == (400, True)


async def test_closing_after_the_expiry() -> None:
    talk = Talk(session_seconds=10)
    await talk.open()
    talk.now += 10
    assert (await talk.send('{"requestType":"CLOSE"}')).status == 424


async def test_torchserve_says_503_for_everything() -> None:
    talk = Talk(dialect="torchserve", session_seconds=10, max_sessions=1)
    await talk.open(b'{"type":"start_session"}')
    assert b"maxSequenceJobQueueSize" in (await talk.open(b'{"type":"start_session"}')).body
    talk = Talk(dialect="torchserve", session_seconds=10)
    await talk.open(b'{"type":"start_session"}')
    body = '{"text":"hi","session_id":"%s"}'
    assert (await talk.send(body % talk.session, JSON)).status == 200
    assert (await talk.send(body % "other", JSON)).status == 503
    assert (await talk.send("hi")).status == 503
    talk.now += 10
    assert (await talk.send(body % talk.session, JSON)).status == 503
    assert (await talk.send('{"type":"close_session"}', JSON)).status == 503


async def test_session_requests_have_no_further_keys() -> None:
    talk = Talk()
    assert (await talk.open(b'{"requestType":"NEW_SESSION","x":1}')).status == 400
    assert (await talk.open(b'{"requestType":"OTHER"}')).status == 400


async def test_there_is_room_for_so_many_sessions() -> None:
    talk = Talk(max_sessions=1, session_seconds=10)
    await talk.open()
    assert (await talk.open()).status == 503
    talk.now += 10
    assert (await talk.open()).status == 200


@pytest.mark.parametrize(
    ("expires", "ending"),
    [("standard", "; Expires=1970-01-01T00:36:40Z"), ("naive", "; Expires=1970-01-01T00:36:40")],
)
async def test_the_expiry_as_containers_write_it(expires: Any, ending: str) -> None:
    assert (await Talk(expires=expires).open()).headers[NEW_SESSION_ID].endswith(ending)


def test_a_long_message_makes_room_in_the_context() -> None:
    context = Context("", 0.0, slot=0)
    context.exchanges = ["x" * 1500] * 3
    said = _limited("y" * 9000)
    prompt = _prompt(context, said)
    assert prompt.endswith(said)
    assert len(prompt) <= 3 * (CONTEXT_TOKENS - MAX_TOKENS)
    assert len(context.exchanges) == 1


async def test_commands_have_bounds() -> None:
    talk = Talk()
    await talk.open()
    assert (await talk.send("/fail 200")).status == 500
    assert (await talk.send("/fail 404 no such thing")).body == b"no such thing"
    for amount in ("999999999999", "9" * 400):
        assert len((await talk.send(f"/bytes {amount}")).body) == 30_000_000
    assert (await talk.say("/sleep")).startswith("Turn")


def chat(*contents: str) -> str:
    """A request whose messages are a user's and an assistant's in turn."""
    roles = ("user", "assistant") * len(contents)
    messages = [
        {"role": role, "content": text} for role, text in zip(roles, contents, strict=False)
    ]
    return msgspec.json.encode({"messages": messages}).decode()


def answer(reply: Reply) -> str:
    """What an assistant says in one piece."""
    assert reply.status == 200, reply.body
    said: str = msgspec.json.decode(reply.body)["choices"][0]["message"]["content"]
    return said


NO_CHATS = [
    "{",
    '{"text": "hi"}',
    '{"messages": []}',
    '{"messages": [{"role": "user"}]}',
    '{"messages": [{"role": "stranger", "content": "hi"}]}',
    chat("hi", "Hello."),
]


async def test_one_that_forgets_knows_what_it_is_told() -> None:
    talk = Talk(forgets=True)
    await talk.open()
    first, second = "My name is Ada.", "Remember that the sky is green."
    reply = await talk.send(chat(first), JSON)
    assert answer(reply) == "Turn 1 on instance i-1. Hello Ada, I will remember your name."
    again = await talk.send(chat("What do you know?"), JSON)
    assert answer(again) == "Turn 1 on instance i-1. I know nothing about you yet."
    told = chat(first, "Hello Ada.", "/sleep 9", "Yes.", second, "I will.", "What do you know?")
    known = "Turn 4 on instance i-1. Your name is Ada. You told me that the sky is green."
    whole = await talk.send(told, JSON)
    assert answer(whole) == known
    assert whole.headers["x-amzn-sagemaker-custom-attributes"] == "turn=4;instance=i-1"
    talk.session = "NEW_SESSION"  # no session at all
    assert answer(await talk.send(told, JSON)) == known


@pytest.mark.parametrize("body", NO_CHATS)
async def test_one_that_forgets_takes_chats_alone(body: str) -> None:
    talk = Talk(forgets=True)
    await talk.open()
    assert (await talk.send(body, JSON)).status == 400
    assert (await talk.send("hi", TEXT)).status == 400
    assert (await talk.send('{"requestType":"CLOSE"}')).status == 200


class Failing:
    """Stands for a llama.cpp that refuses a request, which can't be had at will."""

    def handle_completions(self, _request: object, took: Callable[[Any], bool]) -> None:
        took({"code": 500, "message": "no"})


class Watched:
    """A llama.cpp, and what it says of how much of each prompt was in its slot's cache."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.slots: list[int] = []
        self.cached: list[int] = []

    def handle_completions(self, request: Any, took: Callable[[Any], bool]) -> None:
        def seen(chunk: Any) -> bool:
            if "timings" in chunk:
                self.cached.append(chunk["timings"]["cache_n"])
            return took(chunk)

        self.slots.append(request["id_slot"])
        self._server.handle_completions(request, seen)


class TestLanguageModel:
    @pytest.mark.long
    async def test_each_session_has_its_own_context(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.local.llama.MAX_TOKENS", 10)
        model = LanguageModel(Llama(find_weights(None)), "i-1")

        async def opened() -> str:
            reply = await model.invoke(
                {SESSION_ID: "NEW_SESSION"}, b'{"requestType":"NEW_SESSION"}'
            )
            return reply.headers.get(NEW_SESSION_ID, "").partition(";")[0]

        first, second = await opened(), await opened()
        headers = [{SESSION_ID: name, **TEXT} for name in (first, second)]

        async def said(headers: Any, body: bytes) -> Reply:
            return await read(await model.invoke(headers, body))

        replies = await asyncio.gather(*(said(each, b"Name one fruit.") for each in headers))
        assert all(reply.status == 200 and reply.body for reply in replies)
        as_json = await said({SESSION_ID: first, **JSON}, b'{"text":"Another one?"}')
        assert msgspec.json.decode(as_json.body)["generated_text"]
        assert as_json.headers["x-amzn-sagemaker-custom-attributes"] == "turn=2;instance=i-1"
        without = await said(TEXT, b"hi")
        assert without.headers["x-amzn-sagemaker-custom-attributes"] == "turn=1;instance=i-1"
        assert all([await opened() for _ in range(SLOTS - 2)])
        assert await opened() == "", "there is no slot left"
        story = asyncio.create_task(said(headers[1], b"Tell me a very long story."))
        await asyncio.sleep(0)
        story.cancel()
        with pytest.raises(asyncio.CancelledError):
            await story
        closed = await model.invoke({SESSION_ID: first}, b'{"requestType":"CLOSE"}')
        assert closed.status == 200
        assert await opened()
        await model.close()

    @pytest.mark.long
    async def test_it_says_a_token_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = LanguageModel(Llama(find_weights(None)), "i-1")
        emoji = "Reply with five emoji, nothing else: 🙂🎉🌍🚀❤️".encode()
        for most in (26, 27):  # cut off within characters, which are of several tokens
            monkeypatch.setattr("gateway.local.llama.MAX_TOKENS", most)
            reply = await model.invoke(TEXT, emoji)
            assert not isinstance(reply.body, bytes)
            parts = [part.decode() async for part in reply.body]
            assert len(parts) > 5
            said = "".join(parts)
            assert "\ufffd" not in said
            assert said == said.strip()
            assert "🎉" in said, "or this test tests nothing"
        monkeypatch.setattr("gateway.local.llama.MAX_TOKENS", 10)
        asked: Any = {"messages": [{"role": "user", "content": "Name one fruit."}]}
        in_one = await read(await model.invoke(JSON, msgspec.json.encode(asked)))
        said = msgspec.json.decode(in_one.body)["choices"][0]["message"]["content"]
        reply = await model.invoke(JSON, msgspec.json.encode({**asked, "stream": True}))
        assert reply.headers["content-type"] == "text/event-stream"
        *chunks, last, done = (await read(reply)).body.strip().split(b"\n\n")
        assert b'"finish_reason":"stop"' in last
        assert done == b"data: [DONE]"
        deltas = [
            msgspec.json.decode(chunk.removeprefix(b"data: "))["choices"][0] for chunk in chunks
        ]
        assert "".join(delta["delta"]["content"] for delta in deltas) == said
        await model.close()

    @pytest.mark.long
    async def test_one_that_forgets_goes_on_from_what_its_session_has_cached(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two instances share one llama.cpp, with slots of their own."""
        monkeypatch.setattr("gateway.local.llama.MAX_TOKENS", 10)
        llama = Llama(find_weights(None))
        await llama.load()
        half = SLOTS // 2
        models = [
            LanguageModel(llama, "i-1", slots=slots, forgets=True)
            for slots in (range(half), range(half, SLOTS))
        ]
        watched = Watched(llama._server)
        llama._server = watched

        async def said(model: LanguageModel, session: str, *contents: str) -> str:
            headers = {SESSION_ID: session, **JSON}
            return answer(await read(await model.invoke(headers, chat(*contents).encode())))

        sessions = []
        for model in models:
            opened = await model.invoke({}, b'{"requestType":"NEW_SESSION"}')
            sessions.append(opened.headers[NEW_SESSION_ID].partition(";")[0])
        question = "Name one fruit."
        spoken = [
            await said(model, session, question)
            for model, session in zip(models, sessions, strict=True)
        ]
        assert spoken[0] == spoken[1]
        whole = (question, spoken[0], "Name another one.")
        for model, session in zip(models, sessions, strict=True):
            await said(model, session, *whole)
        first, other, warm, other_warm = watched.cached
        assert (first, other) == (0, 0), "a slot of its own, and a cold one"
        assert warm == other_warm
        assert warm > len(question) / 4, "the turn before is not evaluated again"
        assert watched.slots == [0, half, 0, half]
        for _ in range(half - 1):
            await models[0].invoke({}, b'{"requestType":"NEW_SESSION"}')
        opened = await models[0].invoke({}, b'{"requestType":"NEW_SESSION"}')
        shares = opened.headers[NEW_SESSION_ID].partition(";")[0]
        both = (said(models[0], session, question) for session in (sessions[0], shares))
        assert await asyncio.gather(*both) == [spoken[0], spoken[0]]
        assert watched.slots[-2:] == [0, 0]
        too_long = await read(await models[0].invoke(JSON, chat("long " * CONTEXT_TOKENS).encode()))
        assert too_long.status == 400
        assert b"maximum context length" in too_long.body
        for model in models:
            await model.close()

    @pytest.mark.long
    async def test_it_stops_when_nobody_listens(self) -> None:
        model = LanguageModel(Llama(find_weights(None)), "i-1")
        opened = await model.invoke({SESSION_ID: "NEW_SESSION"}, b'{"requestType":"NEW_SESSION"}')
        name = opened.headers[NEW_SESSION_ID].partition(";")[0]
        reply = await model.invoke({SESSION_ID: name, **TEXT}, b"Tell me a very long story.")
        assert not isinstance(reply.body, bytes)
        said = (await anext(aiter(reply.body))).decode()
        await reply.body.aclose()
        (context,) = model._conversations.values()
        assert not model._llama._stopping
        assert context.exchanges == [
            "<|im_start|>user\nTell me a very long story.<|im_end|>\n"
            f"<|im_start|>assistant\n{said}<|im_end|>\n"
        ], "what it has said stays in its context"
        again = await read(await model.invoke({SESSION_ID: name, **TEXT}, b"Name one fruit."))
        assert again.body
        assert model.turns == {name: 2}
        await model.close()

    @pytest.mark.long
    def test_one_that_is_let_go_of_at_once_ends(self) -> None:
        program = (
            "from gateway.local.llama import Llama, find_weights\n"
            "for _ in range(4): Llama(find_weights(None))._start()"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60 * UNIT)

    async def test_llama_cpp_fails(self) -> None:
        model = LanguageModel(Llama(find_weights(None)), "i-1")
        await model._llama.load()
        model._llama._server = Failing()
        reply = await model.invoke(JSON, b'{"inputs": "hi"}')
        assert (reply.status, reply.body) == (500, b"the model failed")
        reply = await model.invoke(JSON, b'{"inputs": "hi", "stream": true}')
        assert b'{"code":500,"error":"the model failed"}\n' in (await read(reply)).body
        reply = await model.invoke(TEXT, b"hi")
        with pytest.raises(ContainerUnreachable):
            await read(reply)
        await model.close()

    async def test_what_is_missing_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert find_weights(tmp_path) == tmp_path
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "xllamacpp" or None)
        with pytest.raises(LanguageModelUnavailable, match="weights are not installed"):
            find_weights(None)
