"""Each place where a connection can break while a message is under way, and what comes of it.

One conversation is played over and over: open, a message whose reply comes in four parts, close.
Run as a module, this writes the table of docs/guarantees.md from what happens; the tests play the
same and compare with the table, so that it says what is so.
"""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby, product
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import Struct

from tests.support.cable import Break, Cable, Where, cable_to, calls, messages
from tests.support.client import JSON, MSGPACK, Message, in_time
from tests.support.comeback import SILENCE, Comeback
from tests.support.processes import Process, admin, aside, gateway, local
from tests.support.timing import UNIT

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local-secret"}
HEAD = "| where it breaks | what the client receives | result |\n| --- | --- | --- |\n"

CONFIG = """
[server]
heartbeat_seconds = 3600

[aws]
region = "us-east-1"
endpoint_url = "{url}"
transport = "{transport}"
read_timeout_seconds = {silence}

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
stream = "raw"
retries = 20
retry_seconds = 0.05
retry_max_seconds = 30
"""

TEXT = "/count 4 5"
REPLY = "1 2 3 4"


class Case(Struct, frozen=True):
    """One way in which it can go.

    Attributes:
        name: Where it breaks, in words.
        client: Between client and gateway.
        platform: Between gateway and platform, once the session is open.
        fault: Of the platform itself.
        stream: Whether the reply comes in parts.
        forgets_key: See `Comeback`.
        pings: Likewise.
        stalls: The client has to notice by itself that nothing comes any more.
        unplugged: Seconds for which the platform can't be reached.
        delay: Seconds that the platform takes for each call.
    """

    name: str
    client: tuple[Break, ...] = ()
    platform: tuple[Break, ...] = ()
    fault: dict[str, str | int] = {}
    stream: bool = True
    forgets_key: frozenset[int] = frozenset()
    pings: bool = False
    stalls: bool = False
    unplugged: float = 0.0
    delay: float = 0.0


PLACES: tuple[tuple[Where, str], ...] = (("before", "before"), ("middle", "in the middle of"))
AFTER_DELTA = Break("down", "message.delta", "after", 1)

CLIENT = (
    Case("before the handshake", (Break("up", "handshake"),)),
    Case("in the middle of the handshake response", (Break("down", "handshake", "middle"),)),
    Case("after the handshake", (Break("down", "handshake", "after"),)),
    Case("in the middle of `session.open`", (Break("up", "session.open", "middle"),)),
    Case("before `session.opened`", (Break("down", "session.opened"),)),
    Case("in the middle of `session.opened`", (Break("down", "session.opened", "middle"),)),
    Case("after `session.opened`", (Break("down", "session.opened", "after"),)),
    Case("in the middle of `message.send`", (Break("up", "message.send", "middle"),)),
    Case("after `message.send`", (Break("up", "message.send", "after"),), delay=0.1),
    Case("before `message.accepted`", (Break("down", "message.accepted"),)),
    Case("in the middle of `message.accepted`", (Break("down", "message.accepted", "middle"),)),
    Case("after `message.accepted`", (Break("down", "message.accepted", "after"),)),
    *(
        Case(f"{where} delta {number}", (Break("down", "message.delta", place, number),))
        for number in range(4)
        for place, where in PLACES
    ),
    Case("after the last delta", (Break("down", "message.delta", "after", 3),)),
    Case("reset after delta 1", (Break("down", "message.delta", "after", 1, "reset"),)),
    Case(
        "silence after delta 1; the client takes over its own session",
        (Break("down", "message.delta", "after", 1, "stall"),),
        stalls=True,
    ),
    Case("before `message.done`", (Break("down", "message.done"),)),
    Case("in the middle of `message.done`", (Break("down", "message.done", "middle"),)),
    Case("after `message.done`", (Break("down", "message.done", "after"),)),
    Case(
        "after delta 1, then before `session.resumed`",
        (AFTER_DELTA, Break("down", "session.resumed")),
    ),
    Case(
        "after delta 1, then in the middle of `session.resumed`",
        (AFTER_DELTA, Break("down", "session.resumed", "middle")),
    ),
    Case(
        "after delta 1, then after `session.resumed`; the client uses the old key",
        (AFTER_DELTA, Break("down", "session.resumed", "after")),
        forgets_key=frozenset({3}),
    ),
    Case(
        "after `message.done`, then after the first message; the client uses the old key",
        (Break("down", "message.done", "after"), Break("down", "pong", "after")),
        forgets_key=frozenset({3}),
        pings=True,
    ),
    Case("in the middle of `session.close`", (Break("up", "session.close", "middle"),)),
    Case("after `session.close`", (Break("up", "session.close", "after"),), delay=0.1),
    Case("before `session.closed`", (Break("down", "session.closed"),)),
    Case("after `session.closed`", (Break("down", "session.closed", "after"),)),
)

PLATFORM = (
    Case("connection refused for a while", unplugged=0.05),
    Case("throttled twice", fault={"error": "ThrottlingException", "times": 2}),
    Case("model not ready, twice", fault={"error": "ModelNotReadyException", "times": 2}),
    Case("SageMaker unavailable", fault={"error": "ServiceUnavailable"}),
    Case("cut before the request", platform=(Break("up", "turn"),)),
    Case("cut in the middle of the request", platform=(Break("up", "turn", "middle"),)),
    Case("cut after the request", platform=(Break("up", "turn", "after"),)),
    Case("cut before a streamed reply", platform=(Break("down", "turn begin"),)),
    Case("cut before an unstreamed reply", platform=(Break("down", "turn begin"),), stream=False),
    Case(
        "cut in the middle of an unstreamed reply",
        platform=(Break("down", "turn reply", "middle"),),
        stream=False,
    ),
    Case(
        "cut in the middle of an unstreamed reply's headers",
        platform=(Break("down", "turn begin", "middle"),),
        stream=False,
    ),
    Case(
        "reset before an unstreamed reply",
        platform=(Break("down", "turn begin", "before", 0, "reset"),),
        stream=False,
    ),
    Case(
        "silence instead of an unstreamed reply",
        platform=(Break("down", "turn begin", "before", 0, "stall"),),
        stream=False,
    ),
    *(
        Case(f"cut before part {number}", platform=(Break("down", "turn part", "before", number),))
        for number in range(5)
    ),
    Case("cut in the middle of part 2", platform=(Break("down", "turn part", "middle", 2),)),
    Case("reset before part 2", platform=(Break("down", "turn part", "before", 2, "reset"),)),
    Case("silence instead of part 2", platform=(Break("down", "turn part", "before", 2, "stall"),)),
    *(
        Case(
            f"the stream fails after 2 parts ({mode})",
            fault={"break_after_parts": 2, "break_mode": mode},
        )
        for mode in ("exception", "time", "internal", "cut")
    ),
)


class Stage:
    """The gateway, the platform, and a cable on either side of the gateway."""

    def __init__(self, front: Cable, back: Cable, platform: Process, process: Process) -> None:
        self.front = front
        self.back = back
        self.platform = platform
        self.process = process

    def turns(self) -> int:
        """How many turns the model has begun."""
        instances = admin(self.platform)["instances"]
        return sum(count for instance in instances for count in instance["turns"].values())

    async def play(self, case: Case, subprotocol: str = JSON) -> list[str]:
        """Play the conversation; gives the table's row."""
        before = self.turns()
        self.front.prepare(*case.client)
        admin(self.platform, "/faults", delay_seconds=case.delay)
        talk = Talk(self, case, subprotocol)
        await in_time(talk.run())
        admin(self.platform, "/faults", delay_seconds=0)
        unused = [*self.front.breaks, *self.back.breaks]
        assert not unused, f"no connection has come to where it was to break: {unused}"
        ran = self.turns() - before
        self.check(talk, ran)
        return [case.name, told(talk), came_of(talk, ran)]

    def check(self, talk: Comeback, ran: int) -> None:
        """What must be so wherever it breaks; the client itself has checked order and number."""
        assert talk.accepted == set(talk.done) == {"m"}, "accepted once, ended once"
        outcome = talk.outcome("m")
        if outcome == "completed":
            assert talk.text("m") == REPLY
        expected = {"completed": {1}, "invoked": {1}, "not_invoked": {0}, "unknown": {0, 1}}
        assert ran in expected[outcome], f"{outcome}, but it ran {ran} times"


StageFor = Callable[[Case], Stage]


class Talk(Comeback):
    """The conversation, with the faults of the platform's side as soon as the session is open."""

    def __init__(self, stage: Stage, case: Case, subprotocol: str) -> None:
        super().__init__(
            f"{stage.front.url}/ws",
            {"m": TEXT},
            subprotocol=subprotocol,
            stream=case.stream,
            silence=SILENCE if case.stalls else 10 * UNIT,
            closes=True,
            pings=case.pings,
            forgets_key=case.forgets_key,
        )
        self._stage = stage
        self._case = case

    async def greeted(self) -> None:
        """See `Comeback.greeted`."""
        case, self._case = self._case, Case("")
        self._stage.back.prepare(*case.platform)
        if case.fault:
            admin(self._stage.platform, "/faults", **case.fault)
        if case.unplugged:
            await self._stage.back.unplug()
            asyncio.get_running_loop().call_later(case.unplugged, self._plug)
            await asyncio.sleep(case.unplugged / 5)  # the gateway drops the connections it keeps

    def _plug(self) -> None:
        self._plugging = asyncio.create_task(self._stage.back.plug())


def told(talk: Comeback) -> str:
    """What the client has heard, a connection after the other."""
    return " ✂ ".join(_told(heard) or "nothing" for heard in talk.heard)


def _told(heard: list[Message | int]) -> str:
    words = []
    # An answer about the connection comes between events, wherever that is.
    said = [one for one in heard if isinstance(one, int) or "event" in one or "last_event" in one]
    for kind, group in groupby(said, lambda one: one if isinstance(one, int) else one["type"]):
        indexes = [one["index"] for one in group if isinstance(one, dict) and "index" in one]
        if indexes:
            first, last = indexes[0], indexes[-1]
            words.append(f"delta {first}" if first == last else f"deltas {first} to {last}")
        else:
            words.append(f"{kind}".rpartition(".")[2])
    return ", ".join(words)


def came_of(talk: Comeback, ran: int) -> str:
    """How the message ended, and whether the model has seen it."""
    done = talk.done["m"]
    how = done["status"]
    if how != "completed":
        how += f", `{done['error']['code']}`, outcome `{done['error']['outcome']}`"
    return f"{how}; the model {'ran it once' if ran else 'never saw it'}"


@asynccontextmanager
async def staged(folder: Path, transport: str = "lean") -> AsyncIterator[StageFor]:
    """Everything, running: one gateway that soon takes silence for a failure, and a patient one."""
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(aside(local()))
        back = await stack.enter_async_context(cable_to(platform.url, calls))
        stages = []
        for silence in (20 * UNIT, 0.5 * UNIT):
            config = folder / f"{silence}.toml"
            config.write_text(CONFIG.format(url=back.url, transport=transport, silence=silence))
            process = await stack.enter_async_context(aside(gateway(config)))
            front = await stack.enter_async_context(cable_to(process.websocket, messages))
            stages.append(Stage(front, back, platform, process))
        yield lambda case: stages[any(one.how == "stall" for one in case.platform)]


def line(row: list[str]) -> str:
    """A row of the table."""
    return f"| {' | '.join(row)} |"


def documented(side: str) -> list[str]:
    """The rows of one table as they are in the document."""
    table: str
    (table,) = re.findall(rf"<!-- {side} -->\n(.*?)<!-- /{side} -->", PAGE.read_text(), re.DOTALL)
    assert table.startswith(HEAD)
    return table.removeprefix(HEAD).splitlines()


SIDES = {"client": CLIENT, "platform": PLATFORM}


CODECS = {"client": (JSON, MSGPACK), "platform": (JSON,)}
"""Those that have a part in it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage_for(
    transport: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[StageFor]:
    """The same for all cases of a kind."""
    async with staged(tmp_path_factory.mktemp("stage"), transport) as stage_for:
        yield stage_for


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("side", "case", "subprotocol"),
    [
        pytest.param(side, case, subprotocol, id=f"{subprotocol.split('.')[1]}: {case.name}")
        for side, cases in SIDES.items()
        for subprotocol, case in product(CODECS[side], cases)
    ],
)
async def test_what_comes_of_a_break_is_what_the_document_says(
    stage_for: StageFor, side: str, case: Case, subprotocol: str
) -> None:
    stage = stage_for(case)
    begin = len(stage.process.lines)
    try:
        assert line(await stage.play(case, subprotocol)) in documented(side)
    finally:
        stage.front.breaks.clear()
        stage.back.breaks.clear()
        sys.stdout.writelines(stage.process.lines[begin:])


@pytest.mark.parametrize("side", SIDES)
def test_the_document_has_every_case(side: str) -> None:
    assert [row.split(" | ")[0] for row in documented(side)] == [f"| {c.name}" for c in SIDES[side]]


async def _write() -> None:
    text = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        async with staged(Path(folder)) as stage_for:
            for side, cases in SIDES.items():
                rows = "".join([f"{line(await stage_for(case).play(case))}\n" for case in cases])
                begin, end = f"<!-- {side} -->\n", f"<!-- /{side} -->"
                before, _, rest = text.partition(begin)
                text = f"{before}{begin}{HEAD}{rows}{end}{rest.partition(end)[2]}"
                sys.stdout.write(f"{HEAD}{rows}\n")
    PAGE.write_text(text)


if __name__ == "__main__":
    os.environ.update(KEYS)
    asyncio.run(_write())
