"""What every client does: each scenario with each of them, and the real gateway."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.client.driven import Program, Refused, Session
from tests.support import npm
from tests.support.processes import Process, admin, gateway, local
from tests.support.proxy import proxy_to
from tests.support.timing import UNIT
from tests.support.tokens import add_key

PYTHON = [sys.executable, "-m", "tests.client.drivers.driver"]
DRIVERS = Path(__file__).parent / "drivers"
CLIENTS = {
    "python": [*PYTHON, "json"],
    "python-msgpack": [*PYTHON, "msgpack"],
    "python-sync": [*PYTHON, "sync"],
    "node": [npm.NEWEST, "driver.mjs"],
    "node-20-ws": [npm.OLDEST, "driver.mjs"],
    "chromium": [sys.executable, "-m", "tests.client.drivers.browser"],
}
WHOLE_BYTES = bytes(range(256))

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
stream = "raw"

[routes.whole]
endpoint_name = "my-endpoint"
content_type = "text/plain"

[routes.json]
endpoint_name = "my-endpoint"
content_type = "application/json"
body = "json"
"""

Open = Callable[..., Awaitable[Session]]


@pytest.fixture(scope="module")
def platform() -> Iterator[Process]:
    with local() as process:
        yield process


@pytest.fixture(scope="module")
def url(platform: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("gateway") / "gateway.toml"
    file.write_text(CONFIG.format(url=platform.url))
    with gateway(file) as process:
        yield f"{process.websocket}/ws"


@pytest.fixture(scope="module", params=CLIENTS)
def start(
    request: pytest.FixtureRequest, npm_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Program]]:
    """Starts the client's program, as often as a scenario wants."""
    command = CLIENTS[request.param]
    folder = tmp_path_factory.mktemp("client")
    for name in ("driver.mjs", "sessions.mjs"):
        (folder / name).write_text((DRIVERS / name).read_text())
    (folder / "node_modules").mkdir()
    for name, place in (
        ("ws", npm.MODULES / "ws"),
        ("session-gateway-client", npm_package / "app" / "node_modules" / "session-gateway-client"),
    ):
        (folder / "node_modules" / name).symlink_to(place)
    with ExitStack() as stack:

        def start() -> Program:
            program = Program(command, npm.ROOT if command[0] == sys.executable else folder)
            stack.callback(program.stop)
            return program

        yield start


@pytest.fixture(scope="module")
def program(start: Callable[[], Program]) -> Program:
    return start()


NAMES = (f"s{number}" for number in itertools.count())


@pytest_asyncio.fixture
async def opened(program: Program) -> AsyncIterator[Open]:
    """Opens sessions of the client's, which are closed at the end."""
    sessions = []

    async def opened(url: str, token: str | None = None) -> Session:
        session = Session(program, next(NAMES))
        await session.open(url, token)
        sessions.append(session)
        return session

    yield opened
    for session in sessions:
        await session.close()


def begun(platform: Process) -> int:
    """How many turns the model has begun."""
    instances = admin(platform)["instances"]
    return sum(count for instance in instances for count in instance["turns"].values())


def sessions(platform: Process) -> int:
    """How many the model has."""
    return sum(instance["sessions"] for instance in admin(platform)["instances"])


async def another_begins(platform: Process, before: int) -> None:
    """Wait until the model has begun more than so many turns."""
    async with asyncio.timeout(20 * UNIT):
        while begun(platform) <= before:  # noqa: ASYNC110 - the model tells nobody
            await asyncio.sleep(0.01 * UNIT)


async def test_a_message_is_answered_whole(url: str, opened: Open) -> None:
    session = await opened(f"{url}/whole")
    await session.say("My name is Ada.")
    end = await session.say("What is my name?")
    assert (end.status, end.deltas, end.outcome) == ("completed", 0, None)
    assert (end.content_type or "").startswith("text/plain")
    assert "Turn 2" in end.text
    assert "Your name is Ada." in end.text


async def test_a_reply_streams(url: str, opened: Open) -> None:
    session = await opened(url)
    turn = await session.send("/count 5 1")
    first = await session.parts(turn, 5)
    end = await session.end(turn)
    assert (end.status, end.deltas) == ("completed", 5)
    assert b"".join(first) == end.body
    assert end.text.split() == ["1", "2", "3", "4", "5"]
    whole = await session.say("/count 3 1", stream=False)
    assert whole.text.split() == ["1", "2", "3"]


async def test_turns_are_cancelled(url: str, platform: Process, opened: Open) -> None:
    session = await opened(url)
    before = begun(platform)
    slow, queued = await session.send("/sleep 600"), await session.send("never")
    await another_begins(platform, before)
    await session.cancel(queued)
    await session.cancel(slow)
    ends = await session.end(queued), await session.end(slow)
    assert [end.status for end in ends] == ["cancelled", "cancelled"]
    assert ends[0].outcome == "not_invoked"
    assert ends[1].outcome in {"unknown", "invoked"}
    assert "Turn 2" in (await session.say("hi")).text


async def test_a_model_that_fails(url: str, opened: Open) -> None:
    session = await opened(url)
    end = await session.say("/fail 500")
    assert (end.status, end.code, end.outcome) == ("failed", "model_error", "invoked")
    assert (await session.say("/echo Hello")).text == "Hello"


async def test_a_message_that_is_refused(url: str, opened: Open) -> None:
    session = await opened(url)
    end = await session.say("hi", target_model="another")
    assert (end.status, end.code, end.outcome) == ("failed", "forbidden", "not_invoked")
    assert "Turn 1" in (await session.say("hi")).text


async def test_bodies_that_are_no_text(url: str, opened: Open) -> None:
    session = await opened(f"{url}/whole")
    assert (await session.say(WHOLE_BYTES)).body == WHOLE_BYTES
    end = await session.say("/bytes 1000")
    assert end.content_type == "application/octet-stream"
    assert end.body == b"x" * 1000


async def test_bodies_that_are_json(url: str, opened: Open) -> None:
    session = await opened(f"{url}/json")
    end = await session.say({"text": "My name is Zoë.", "more": [1, None, True]})
    assert json.loads(end.body)["name"] == "Zoë"


async def test_turns_go_on_while_the_cable_is_cut(
    url: str, platform: Process, opened: Open
) -> None:
    async with proxy_to(url) as line:
        session = await opened(line.url)
        await session.say("My name is Ada.")
        for _ in range(2):
            before = begun(platform)
            counting = await session.send("/count 20 10")
            turns = [await session.send(text) for text in ("What is my name?", "hi")]
            await another_begins(platform, before)
            first = await session.parts(counting, 3)
            line.cut_all()
            late = await session.send("What is my name?")
            counted = await session.end(counting)
            assert counted.text.split() == [str(number) for number in range(1, 21)]
            assert counted.body.startswith(b"".join(first))
            texts = [(await session.end(turn)).text for turn in (*turns, late)]
            assert "Your name is Ada." in texts[0]
            assert "Your name is Ada." in texts[2]
        assert "Turn 10" in (await session.say("hi")).text, "each was invoked once"
        assert await session.notices() == ["opened", "resumed", "resumed"]
        await session.close()


async def test_a_session_that_is_gone(url: str, opened: Open) -> None:
    """The model ends it; another one takes its place, and has forgotten."""
    session = await opened(url)
    await session.say("My name is Ada.")
    assert (await session.say("/close")).status == "completed"
    end = await session.say("What is my name?")
    assert (end.status, end.code) == ("failed", "session_lost")
    async with asyncio.timeout(20 * UNIT):
        while await session.notices() != ["opened", "replaced"]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01 * UNIT)
    end = await session.say("What is my name?")
    assert "Turn 1" in end.text
    assert "Ada" not in end.text


async def test_another_program_goes_on(
    url: str, program: Program, start: Callable[[], Program]
) -> None:
    first = Session(start(), "first")
    await first.open(url)
    await first.say("My name is Ada.")
    counting = await first.send("/count 30 20")
    await first.parts(counting, 2)
    saved = await first.leave()
    second = Session(program, next(NAMES))
    await second.open(url, saved=saved)
    rest = await second.end(counting)
    assert (rest.status, rest.deltas) == ("completed", 30)
    assert rest.text.split()[-20:] == [str(number) for number in range(11, 31)]
    end = await second.say("What is my name?")
    assert "Turn 3" in end.text
    assert "Your name is Ada." in end.text
    assert (await second.notices())[-1] == "resumed"
    await second.close()


async def test_who_it_is(platform: Process, tmp_path: Path, opened: Open) -> None:
    keys, file = tmp_path / "keys.toml", tmp_path / "gateway.toml"
    key = add_key(keys, "ada")
    auth = f'[auth.keys]\nfile = "{keys}"\n'
    file.write_text(CONFIG.format(url=platform.url) + auth)
    with gateway(file) as process:
        url = f"{process.websocket}/ws"
        session = await opened(url, token=key)
        assert "Turn 1" in (await session.say("hi")).text
        for token in (None, "sgk_wrong"):
            with pytest.raises(Refused) as refused:
                await opened(url, token=token)
            assert refused.value.code == 4401
        await session.close()


async def test_a_closed_session_is_closed_at_the_model_too(
    url: str, platform: Process, opened: Open
) -> None:
    session = await opened(url)
    await session.say("hi")
    turn = await session.send("/sleep 600")
    await session.close()
    assert (await session.end(turn)).status in {"cancelled", "failed"}
    assert sessions(platform) == 0
