"""The keys that tokens are signed with, of a file and of an address."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway.security import keysets
from gateway.security.keysets import (
    FRESH_SECONDS,
    MAX_BYTES,
    MAX_KEYS,
    REFETCH_SECONDS,
    RETRY_SECONDS,
    FetchedKeys,
    FileKeys,
    Jwks,
    KeysUnavailable,
    fetch,
)
from tests.support.timing import UNIT
from tests.support.tokens import Signer, key_set, write_key_set

ONE, TWO = Signer("one"), Signer("two")


class Provider:
    """Gives its keys over HTTP, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 1000.0
        self.answer: Any = json.dumps(key_set(ONE))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.rest = ""
        self.waits = asyncio.Event()
        self.waits.set()
        self.called = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.url: str
        self.keys: FetchedKeys

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.called.set()
        await self.waits.wait()
        if not self.rest:
            return web.Response(text=self.answer, status=self.status, headers=self.headers)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(self.answer.encode())
        await asyncio.sleep(0.05)
        await response.write(self.rest.encode())
        return response

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def line(self, why: str) -> dict[str, str]:
        """What is logged where they can't be fetched."""
        return {
            "event": "keys can't be fetched",
            "log_level": "warning",
            "url": f"{self.url}/jwks.json",
            "why": why,
        }

    async def settled(self) -> None:
        await asyncio.gather(*self.tasks)


@contextlib.asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    provider = Provider()
    app = web.Application()
    app.router.add_get("/jwks.json", provider.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    provider.keys = FetchedKeys(
        f"{provider.url}/jwks.json", provider.spawn, clock=lambda: provider.now
    )
    try:
        yield provider
    finally:
        provider.waits.set()
        await provider.settled()
        await runner.cleanup()


async def test_they_are_fetched_when_they_are_needed_and_then_kept() -> None:
    async with providing() as provider:
        assert provider.asked == 0
        found = await asyncio.gather(*[provider.keys.get("one", "ES256") for _ in range(5)])
        assert all(found)
        assert provider.asked == 1
        assert await provider.keys.get(None, "ES256")
        assert provider.asked == 1
        provider.now += FRESH_SECONDS - 1
        assert await provider.keys.get("one", "ES256")
        await provider.settled()
        assert provider.asked == 1, "they are not old yet"


async def test_an_unknown_key_has_them_fetched_again_once_a_minute() -> None:
    async with providing() as provider:
        await provider.keys.get("one", "ES256")
        assert [await provider.keys.get(f"x{number}", "ES256") for number in range(5)] == [[]] * 5
        assert provider.asked == 1
        provider.now += REFETCH_SECONDS - 1
        assert not await provider.keys.get("two", "ES256")
        assert provider.asked == 1
        provider.answer = json.dumps(key_set(ONE, TWO))
        provider.now += 1
        found = await asyncio.gather(*[provider.keys.get("two", "ES256") for _ in range(5)])
        assert all(found)
        assert provider.asked == 2
        assert not await provider.keys.get("three", "ES256")
        provider.now += REFETCH_SECONDS - 1
        assert not await provider.keys.get("three", "ES256")
        assert provider.asked == 2


async def test_old_ones_are_good_while_others_are_fetched_and_where_they_can_not_be() -> None:
    async with providing() as provider:
        await provider.keys.get("one", "ES256")
        provider.now += FRESH_SECONDS
        provider.waits.clear()
        assert await provider.keys.get("one", "ES256"), "nobody waits for it"
        provider.status = 500
        provider.waits.set()
        with capture_logs() as logs:
            await provider.settled()
        assert logs == [provider.line("answered with status 500")]
        provider.now += REFETCH_SECONDS - 1
        assert await provider.keys.get("one", "ES256")
        await provider.settled()
        assert provider.asked == 2, "not before a minute has passed"
        provider.status, provider.answer = 200, json.dumps(key_set(TWO))
        provider.now += 1
        assert await provider.keys.get("one", "ES256")
        await provider.settled()
        assert not await provider.keys.get("one", "ES256"), "it was withdrawn"


NO_SET = "expected a JWK set, of at most 100 keys"
NO_KEY = "has no public key for signatures"


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (404, "", "answered with status 404"),
        (302, "", "answered with status 302"),
        (200, "<html>", "Expecting value: line 1 column 1 (char 0)"),
        (200, "[]", NO_SET),
        (200, '{"keys": 5}', NO_SET),
        (200, '{"keys": []}', NO_KEY),
        (200, json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "one"}]}), NO_KEY),
        (200, " " * (MAX_BYTES + 1), "is longer than 1000000 bytes"),
        (200, "[" * 100_000, "RecursionError"),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_what_is_no_set_is_told_and_asked_for_again(
    status: int, answer: str, why: str
) -> None:
    async with providing() as provider:
        provider.status, provider.answer = status, answer
        provider.headers = {"Location": "/jwks.json"}
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(KeysUnavailable, match=r"^the keys can't be fetched$"):
                    await provider.keys.get("one", "ES256")
        assert logs == [provider.line(why)]
        assert provider.asked == 1
        provider.status, provider.answer = 200, json.dumps(key_set(ONE))
        provider.now += RETRY_SECONDS
        assert await provider.keys.get("one", "ES256")


async def test_a_set_may_be_so_long() -> None:
    async with providing() as provider:
        provider.answer = json.dumps(key_set(ONE)).ljust(MAX_BYTES)
        assert await provider.keys.get("one", "ES256")


async def test_a_set_may_come_in_parts_but_be_no_longer() -> None:
    async with providing() as provider:
        provider.answer, provider.rest = json.dumps(key_set(ONE))[:-2], "]}"
        assert await provider.keys.get("one", "ES256")
        provider.answer, provider.rest = json.dumps(key_set(ONE)).ljust(MAX_BYTES), " "
        with pytest.raises(KeysUnavailable, match=r"^is longer than 1000000 bytes$"):
            await fetch(f"{provider.url}/jwks.json")


async def test_an_address_that_is_none_is_told_by_its_beginning() -> None:
    with pytest.raises(KeysUnavailable) as error:
        await fetch(f"http:///{'x' * 300}")
    assert str(error.value) == f"http:///{'x' * 192}…"


async def test_an_address_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keysets, "FETCH_SECONDS", keysets.FETCH_SECONDS / 50)
    async with providing() as provider, asyncio.timeout(5 * UNIT):
        provider.waits.clear()
        with pytest.raises(KeysUnavailable, match=r"^TimeoutError$"):
            await fetch(f"{provider.url}/jwks.json")


async def test_a_key_of_long_ago_is_asked_for_before_it_is_used() -> None:
    async with providing() as provider:
        await provider.keys.get("one", "ES256")
        provider.now += 2 * FRESH_SECONDS
        provider.answer = json.dumps(key_set(TWO))
        assert not await provider.keys.get("one", "ES256"), "it was withdrawn"


async def test_nobody_is_there() -> None:
    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    keys = FetchedKeys("http://127.0.0.1:9/jwks.json", spawn)
    with capture_logs() as logs, pytest.raises(KeysUnavailable):
        await keys.get("one", "ES256")
    (line,) = logs
    assert line["why"] == "ClientConnectorError"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
async def test_no_proxy_is_asked_for_what_is_on_this_machine(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with providing() as provider:
        assert await provider.keys.get("one", "ES256")


async def test_a_proxy_is_asked_for_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with providing() as provider:
        monkeypatch.setenv("HTTP_PROXY", provider.url)
        assert (await fetch("http://id.example.com/jwks.json")).find("one", "ES256")
    assert provider.asked == 1


async def test_who_leaves_does_not_end_what_others_wait_for() -> None:
    async with providing() as provider:
        provider.waits.clear()
        first = asyncio.create_task(provider.keys.get("one", "ES256"))
        second = asyncio.create_task(provider.keys.get("one", "ES256"))
        await provider.called.wait()
        first.cancel()
        provider.waits.set()
        assert await second is not None


async def test_a_file(tmp_path: Path) -> None:
    path = write_key_set(tmp_path / "jwks.json", ONE)
    keys = FileKeys(path)
    assert await keys.get("one", "ES256")
    path.write_text("{")
    with pytest.raises(KeysUnavailable, match=r"jwks\.json:1: not JSON: Expecting"):
        keys.reload()
    assert await keys.get("one", "ES256")
    write_key_set(path, TWO)
    keys.reload()
    assert not await keys.get("one", "ES256")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, ": No such file or directory"),
        ("{", ":1: not JSON: Expecting property name enclosed in double quotes"),
        ('{"keys":\n [}', ":2: not JSON: Expecting value"),
        ("[]", f": {NO_SET}"),
        ('{"keys": []}', f": {NO_KEY}"),
        ("[" * 100_000, ": "),
    ],
    ids=["absent", "open", "line", "list", "empty", "deep"],
)
def test_what_is_wrong_with_a_file(text: str | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(KeysUnavailable) as error:
        FileKeys(path)
    assert str(error.value).startswith(f"{path}{why}")


def test_only_public_keys_for_signatures_are_used() -> None:
    one = ONE.public(key_ops=["verify"])
    private = [
        {**signer.public(), **json.loads(kind.to_jwk(signer.key))}
        for signer in (TWO, Signer("three", "RS256"))
        for kind in [jwt.get_algorithm_by_name(signer.algorithm)]
    ]
    unusable = [
        {"kty": "oct", "k": "AAAA", "kid": "secret"},
        TWO.public(use="enc"),
        TWO.public(key_ops=["sign"]),
        TWO.public(key_ops="verify"),
        TWO.public(alg="RS256"),
        {"kty": "EC", "kid": "half"},
        {"kty": "OKP", "alg": "none", "x": "A", "kid": "none"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A", "d": "A", "kid": "private"},
        {**TWO.public(), "kid": ["a", "list"]},
        *private,
        {"kty": "new", "kid": "new"},
        5,
    ]
    keys = Jwks({"keys": [*unusable, one]})
    for algorithm in ("ES256", "RS256", "EdDSA", "HS256", "none"):
        found = keys.find(None, algorithm)
        assert [key.key_id for key in found] == (["one"] if algorithm == "ES256" else [])


def test_a_set_has_only_so_many_keys() -> None:
    assert len(Jwks({"keys": [ONE.public()] * MAX_KEYS}).find(None, "ES256")) == MAX_KEYS
    with pytest.raises(ValueError, match=f"^{NO_SET}$"):
        Jwks({"keys": [ONE.public()] * (MAX_KEYS + 1)})


@pytest.mark.parametrize("absent", ["use", "kid", "alg"])
def test_a_key_need_not_say_all_of_it(absent: str) -> None:
    key = {name: value for name, value in ONE.public().items() if name != absent}
    assert len(Jwks({"keys": [key]}).find(None, "ES256")) == 1


def test_a_key_is_found_by_its_id_and_its_algorithm() -> None:
    rsa, ed = Signer("one", "RS256"), Signer("ed", "EdDSA")
    nameless = {name: value for name, value in TWO.public().items() if name != "kid"}
    keys = Jwks({"keys": [ONE.public(), rsa.public(), ed.public(), nameless, TWO.public()]})

    def found(key_id: str | None, algorithm: str) -> list[str | None]:
        return [key.key_id for key in keys.find(key_id, algorithm)]

    assert found("one", "ES256") == ["one"]
    assert found("one", "RS256") == ["one"]
    assert found("two", "RS256") == []
    assert found(None, "EdDSA") == ["ed"]
    assert found(None, "ES256") == ["one", None, "two"]
    assert keys.find("one", "ES256")[0].key_type == "EC"
    assert keys.find("one", "RS256")[0].key_type == "RSA"
