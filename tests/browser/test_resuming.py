"""client.js where connections break: each event once and in order, each message at most once."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.conftest import CONFIG
from tests.browser.scripted import Message, ScriptedGateway, until
from tests.support.processes import gateway
from tests.support.timing import UNIT

# An app that writes down all it is told, in its own storage, from one load of the page to the next.
APP = """async () => {
  const { SessionClient, Turn } = await import("/static/client.js");
  const url = location.origin.replace("http", "ws") + "/ws";
  window.client = new SessionClient(url, { storage: sessionStorage, storageKey: "app" });
  window.told = [];
  for (const type of ["opened", "resumed", "renewed", "closed", "accepted", "gap", "error"]) {
    client.addEventListener(type, ({ detail }) => told.push([type, detail]));
  }
  window.states = [];
  client.addEventListener("state", () => states.push(client.state));
  window.turns = () => client.history.filter((item) => item instanceof Turn);
  window.read = async (turn) => {
    window.parts = [];
    for await (const part of turn) parts.push(part);
  };
  client.connect();
}"""

SEND = """() => {
  const turn = client.send({ text: "Count." }, "m1");
  read(turn).catch(() => {}); // the turn says it too
}"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where client.js is served; nothing here speaks to the gateway behind it."""
    config: Path = tmp_path_factory.mktemp("files") / "gateway.toml"
    config.write_text(CONFIG.format(url="http://127.0.0.1:9"))
    with gateway(config) as process:
        yield process.url


class App:
    """A page with a client on it, and the gateway that it speaks to."""

    def __init__(self, page: Page, wire: ScriptedGateway) -> None:
        self.page = page
        self.wire = wire

    async def run(self, script: str) -> Any:
        """The value of an expression, or of an async function's body with a ``return``."""
        body = script if "return" in script else f"return {script};"
        return await self.page.evaluate(f"async () => {{ {body} }}")

    async def begin(self) -> None:
        """Connect."""
        await self.page.evaluate(APP)

    async def load(self) -> None:
        """Load the page again, as a user who reloads it."""
        await self.page.reload()
        await self.begin()

    async def wait(self, condition: str) -> None:
        """Wait for an expression to be true on the page."""
        await until(lambda: self.page.evaluate(f"() => Boolean({condition})"))

    async def ended(self, status: str = "completed") -> Message:
        """The only turn, once it has ended."""
        await self.wait("turns().length && turns().every((turn) => turn.ended)")
        (turn,) = await self.run("turns().map((turn) => turn.ended)")
        assert turn["status"] == status
        return dict(turn)

    async def told(self, kind: str) -> list[Message]:
        """What the app was told of that type."""
        return [detail for type_, detail in await self.run("told") if type_ == kind]


@pytest_asyncio.fixture(loop_scope="session")
async def idle(browser: Browser, files: str) -> AsyncIterator[App]:
    """An app that has not begun to connect."""
    page = await browser.new_page()
    page.set_default_timeout(20_000 * UNIT)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    wire = await ScriptedGateway().play(page)
    await page.goto(f"{files}/page.json")
    yield App(page, wire)
    await page.context.close()
    assert complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def app(idle: App) -> App:
    """An app that connects."""
    await idle.begin()
    return idle


# Events of the one turn: 1 opened, 2 accepted, 3 to 5 parts, 6 done.
POINTS: list[str | int] = ["sending", "accepting", 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("point", "code"), [*((point, 1011) for point in POINTS), (4, 1012), (4, 4413), (4, 1001)]
)
async def test_a_connection_breaks(idle: App, point: str | int, code: int) -> None:
    app = idle
    app.wire.breaks[point] = code
    await app.begin()
    await app.wait("client.state !== 'connecting'")
    await app.page.evaluate(SEND)
    assert (await app.ended())["text"] == "One two three."
    assert await app.run("parts") == ["One ", "two ", "three."]
    assert app.wire.invoked == ["m1"]
    await until(lambda: app.wire.forgotten == 6)
    if point != 6:
        assert len(app.wire.sockets) == 2
        assert app.wire.sessions == 1
        assert len(await app.told("accepted")) == 1


@pytest.mark.parametrize("point", ["resuming", "resumed", 4])
async def test_it_breaks_again_while_it_comes_back(app: App, point: str | int) -> None:
    app.wire.breaks[3] = 1011
    if point != 4:
        app.wire.breaks[point] = 1011
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    if point == 4:
        app.wire.breaks[4] = 1011
    assert (await app.ended())["text"] == "One two three."
    assert await app.run("parts") == ["One ", "two ", "three."]
    assert app.wire.invoked == ["m1"]
    assert len(app.wire.sockets) == 3


async def test_it_breaks_before_there_is_a_session(app: App) -> None:
    app.wire.breaks["opening"] = 4503
    await app.load()
    await app.page.evaluate(SEND)
    assert (await app.ended())["text"] == "One two three."
    assert app.wire.invoked == ["m1"]


@pytest.mark.parametrize("point", [2, 3, 4, 5])
async def test_the_page_is_loaded_again_in_the_middle(app: App, point: int) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    parts = ["One ", "two ", "three."]
    before, after = parts[: point - 2], parts[point - 2 :]
    app.wire.answer("m1", *before)
    await app.wait(f"client.lastEvent === {point}")
    await app.load()
    assert await app.run("turns()[0].text") == "".join(before)
    assert await app.run("turns()[0].status") == "running"
    await app.page.evaluate("() => void read(turns()[0])")
    app.wire.answer("m1", *after, start=len(before))
    app.wire.done("m1", 3)
    assert (await app.ended())["text"] == "One two three."
    assert "".join(await app.run("parts")) == "One two three."
    assert app.wire.invoked == ["m1"]
    await app.load()
    assert (await app.ended())["text"] == "One two three."


async def test_a_page_that_crashes_has_what_it_had_kept(app: App) -> None:
    """Nothing is kept at the end of a crash, so the events since are had from the gateway."""
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    app_kept = "JSON.parse(sessionStorage.app).last_event"
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.answer("m1", *(f"{number} " for number in range(50)))
    await app.wait("client.lastEvent === 52")
    kept = await app.run("sessionStorage.app")
    assert await app.run(app_kept) == app.wire.forgotten == 32
    await app.page.reload()  # which keeps more
    await app.page.evaluate("(kept) => { sessionStorage.app = kept; }", kept)
    await app.page.evaluate(APP)
    app.wire.done("m1", 50)
    assert (await app.ended())["text"] == "".join(f"{number} " for number in range(50))
    assert await app.run("turns()[0].incomplete") is False


async def test_messages_wait_for_a_connection_in_their_order(app: App) -> None:
    await app.wait("client.state === 'open'")
    app.wire.close(1011)
    await app.wait("client.state === 'waiting'")
    await app.run("for (const id of ['a', 'b', 'c']) client.send({ text: id }, id); return 1")
    await app.load()
    await app.wait("turns().length === 3 && turns().every((turn) => turn.ended)")
    assert app.wire.invoked == ["a", "b", "c"]
    assert await app.run("client.send({ text: 'a' }, 'a') === turns()[0]")


async def test_events_are_acknowledged_now_and_then(app: App) -> None:
    app.wire.reply = ["."] * 100
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await app.ended()
    await until(lambda: app.wire.forgotten == 103)
    assert [ack["event"] for ack in app.wire.of_type("event.ack")] == [32, 64, 96, 103]


async def test_what_the_storage_can_not_take_is_not_acknowledged(app: App) -> None:
    await app.wait("client.state === 'open'")
    await app.run("Storage.prototype.setItem = () => { throw new Error('full') }; return 1")
    await app.page.evaluate(SEND)
    assert (await app.ended())["text"] == "One two three."
    assert app.wire.of_type("event.ack") == []


async def test_what_is_kept_as_not_sent_is_not_sent_where_that_can_not_be_changed(app: App) -> None:
    """A reload would send it again."""
    await app.wait("client.state === 'open'")
    app.wire.away = True
    await app.wire.socket.close(1011)
    await app.wait("client.state !== 'open'")
    await app.page.evaluate(SEND)
    await app.run("Storage.prototype.setItem = () => { throw new Error('full') }; return 1")
    app.wire.away = False
    await app.run("client.connect(); return 1")
    error = (await app.ended("failed"))["error"]
    assert (error["code"], error["outcome"]) == ("unavailable", "not_invoked")
    await app.run("client.send({ text: 'Another.' }, 'm2'); return 1")
    await until(lambda: app.wire.invoked == ["m2"])


async def test_a_gap_is_told(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.answer("m1", "One ")
    await app.wait("client.lastEvent === 3")
    await app.wire.socket.close(1011)
    app.wire.answer("m1", "two ", start=1)
    app.wire.forgotten = 4
    app.wire.answer("m1", "three.", start=2)
    app.wire.done("m1", 3)
    done = await app.ended()
    assert done["text"] == "One three."
    assert await app.run("turns()[0].incomplete") is True
    assert await app.told("gap") == [{"lost": [4, 4]}]


@pytest.mark.parametrize(
    ("skips", "places"),
    [({2: 1}, 1), ({4: 1}, 1), ({3: 1, 4: 1}, 1), ({6: 1}, 1), ({3: 1, 5: 2}, 2)],
    ids=["2", "4", "3-4", "6", "3-then-5"],
)
async def test_events_that_were_skipped_are_had_by_resuming(
    app: App, skips: dict[int, int], places: int
) -> None:
    app.wire.skips = skips
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: len(app.wire.log) == 6)
    app.wire.emit("session.updated", expires_at=None)  # so that the last one is missed too
    done = await app.ended()
    assert done["text"] == "One two three."
    assert await app.run("parts") == ["One ", "two ", "three."]
    assert await app.run("turns()[0].incomplete") is False
    assert app.wire.invoked == ["m1"]
    assert await app.told("gap") == []
    assert [socket.code for socket in app.wire.sockets] == [4400] * places + [None]


async def test_events_that_are_skipped_again_end_the_session(app: App) -> None:
    app.wire.skips = {4: 2, 5: 2}
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    error = (await app.ended("failed"))["error"]
    words = "The gateway has skipped events 4 to 5"
    assert error["message"] == f"{words}; the model may or may not have seen the message."
    assert (error["code"], error["outcome"]) == ("session_lost", "unknown")
    assert await app.run("[client.state, client.code, client.reason]") == [
        "closed",
        4400,
        f"{words}.",
    ]
    assert await app.run("parts") == ["One "]
    assert [message.get("last_event") for message in app.wire.of_type("session.open")] == [None, 3]
    assert [socket.code for socket in app.wire.sockets] == [4400, 4400]
    assert app.wire.invoked == ["m1"]


async def test_a_loss_that_leaves_events_out_skips_them(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.answer("m1", "One ")
    await app.wait("client.lastEvent === 3")
    app.wire.breaks["resuming"] = 1011
    await app.wire.socket.close(1011)
    app.wire.answer("m1", "two ", "three.", start=1)
    await until(lambda: "resuming" not in app.wire.breaks)
    app.wire.lost = [5, 5]
    app.wire.done("m1", 3)
    assert (await app.ended("failed"))["error"]["outcome"] == "unknown"
    assert await app.run("client.reason") == "The gateway has skipped event 4."
    assert await app.told("gap") == []


@pytest.mark.parametrize("frame", ["{", "null", "5", "[]", b"\x80"])
async def test_a_gateway_that_sends_no_message_is_left(app: App, frame: str | bytes) -> None:
    await app.wait("client.state === 'open'")
    app.wire.socket.route.send(frame)
    await app.wait("client.state === 'closed'")
    assert await app.run("[client.code, client.reason]") == [
        4400,
        "The gateway has sent no message.",
    ]


async def test_a_gateway_that_resumes_an_older_session_is_left(app: App) -> None:
    await app.wait("client.state === 'open'")
    await app.run("await client.send('Count.'); return 1")
    app.wire.log = app.wire.log[:2]
    app.wire.forgotten = 0
    app.wire.close(1011)
    await app.wait("client.state === 'closed'")
    assert await app.run("client.code") == 4400
    assert "another session" in await app.run("client.reason")


async def test_an_event_that_is_known_is_ignored_and_one_of_an_unknown_type_counted(
    app: App,
) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.answer("m1", "One ")
    for event in app.wire.log:
        app.wire.socket.send(**event)
    app.wire.emit("session.later")  # which counts, whatever it is
    app.wire.answer("m1", "two.", start=1)
    app.wire.done("m1", 2)
    assert (await app.ended())["text"] == "One two."
    assert await app.run("parts") == ["One ", "two."]
    assert len(app.wire.sockets) == 1


async def test_a_turn_whose_end_is_lost_ends(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    await app.wire.socket.close(1011)
    app.wire.answer("m1", "One.")
    app.wire.done("m1", 1)
    app.wire.forgotten = 4
    done = await app.ended("failed")
    assert (done["error"]["code"], done["error"]["outcome"]) == ("stream_broken", "invoked")
    assert app.wire.invoked == ["m1"]


async def test_a_session_that_is_gone(app: App) -> None:
    """What it may have seen is unknown; what was never written goes to the new session."""
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    await app.wire.socket.close(1011)
    app.wire.forget()
    await app.wait("client.state === 'waiting'")
    await app.run("client.send({ text: 'later' }, 'm2'); return 1")
    await until(lambda: app.wire.invoked == ["m1", "m2"])
    assert app.wire.sessions == 2
    first, second = await app.run("turns().map((turn) => turn.ended)")
    assert first["error"]["outcome"] == "unknown"
    assert second is None
    app.wire.answer("m2", "Here.")
    app.wire.done("m2", 1)
    await app.wait("turns()[1].text === 'Here.'")


async def test_a_session_that_is_closed_hands_on_what_it_has_not_accepted(app: App) -> None:
    await app.wait("client.state === 'open'")
    app.wire.deaf = True
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.of_type("message.send") != [])
    app.wire.emit("session.closed", reason="expired")
    app.wire.deaf = False
    app.wire.close(4410)
    assert (await app.ended())["text"] == "One two three."
    assert app.wire.invoked == ["m1"]
    assert app.wire.sessions == 2
    assert [closed["reason"] for closed in await app.told("closed")] == ["expired"]


@pytest.mark.parametrize("code", [1000, 4403])
async def test_no_coming_back(app: App, code: int) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.close(code)
    assert (await app.ended("failed"))["error"]["outcome"] == "unknown"
    assert await app.run("client.state") == "closed"
    failure = await app.run("client.send({ text: '' }).catch((error) => error.failure)")
    assert failure["outcome"] == "not_invoked"


async def test_a_session_that_is_taken_over_can_be_had_back(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.answer("m1", "One ")
    app.wire.close(4409)
    await app.wait("client.state === 'closed'")
    assert await app.run("turns()[0].ended") is None
    app.wire.answer("m1", "two.", start=1)
    app.wire.done("m1", 2)
    await app.run("client.connect()")
    assert (await app.ended())["text"] == "One two."


async def test_stopping(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.answer("m1", "One ")
    await app.wait("client.lastEvent === 3")
    await app.wire.socket.close(1011)
    await app.wait("client.state === 'waiting'")
    await app.run("turns()[0].cancel()")  # which is said as soon as there is a connection
    await app.run("client.send({ text: 'x' }, 'm2').cancel()")  # which nobody has seen
    await until(lambda: app.wire.of_type("message.cancel") != [])
    app.wire.done("m1", 1, "cancelled", outcome="invoked")
    await app.wait("turns().every((turn) => turn.ended)")
    first, second = await app.run("turns().map((turn) => turn.ended)")
    assert (first["status"], first["outcome"], first["text"]) == ("cancelled", "invoked", "One ")
    assert (second["status"], second["outcome"]) == ("cancelled", "not_invoked")
    assert [message["id"] for message in app.wire.of_type("message.cancel")] == ["m1"]
    assert app.wire.invoked == ["m1"]


async def test_a_message_that_is_refused(app: App) -> None:
    app.wire.deaf = True
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.of_type("message.send") != [])
    app.wire.socket.send(
        type="error", code="queue_full", message="Too many.", id="m1", retryable=True
    )
    error = (await app.ended("failed"))["error"]
    assert (error["code"], error["outcome"]) == ("queue_full", "not_invoked")


async def test_a_message_that_is_too_large_stays_here(app: App) -> None:
    await app.wait("client.state === 'open'")
    script = "client.send({ text: '€'.repeat(400) }).catch((error) => error.failure)"
    failure = await app.run(script)
    assert (failure["code"], failure["outcome"]) == ("too_large", "not_invoked")
    assert app.wire.of_type("message.send") == []


async def test_an_error_about_an_accepted_message_does_not_end_it(app: App) -> None:
    await app.wait("client.state === 'open'")
    app.wire.invoked.append("m1")  # so that only what follows is said of it
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.of_type("message.send") != [])
    await app.wait("turns()[0].delivery === 'accepted'")
    app.wire.socket.send(
        type="error", code="unknown_message", message="No.", id="m1", retryable=False
    )
    await app.wait("told.some(([type]) => type === 'error')")
    assert await app.run("turns()[0].ended") is None


async def test_bytes_that_are_streamed(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.emit("message.delta", id="m1", index=0, base64="AQ==")
    await app.load()
    app.wire.emit("message.delta", id="m1", index=1, base64="AgM=")
    app.wire.done("m1", 2, content_type="audio/wav")
    assert (await app.ended())["base64"] == "AQID"
    await app.page.evaluate("() => read(turns()[0])")
    assert await app.run("parts.flatMap((part) => [...part])") == [1, 2, 3]


async def test_a_reply_in_one_piece_is_one_part(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    app.wire.done("m1", 0, text="All of it.")
    assert (await app.ended())["text"] == "All of it."
    assert await app.run("parts") == ["All of it."]


async def test_a_browser_that_goes_offline_and_online(app: App) -> None:
    await app.wait("client.state === 'open'")
    await app.page.context.set_offline(True)
    await app.wait("client.state === 'waiting'")
    assert await app.run("client.reason") == "This device is offline."
    await app.page.context.set_offline(False)
    await app.wait("client.state === 'open'")
    assert app.wire.sessions == 1


async def test_what_was_kept_is_there_without_a_connection(idle: App) -> None:
    await idle.begin()
    await idle.page.evaluate(SEND)
    await idle.ended()
    await idle.page.reload()
    await idle.page.evaluate(APP.replace("client.connect();", ""))
    assert await idle.run("await client.restore(); return client.resumable") is True
    assert await idle.run("turns().map((turn) => turn.text)") == ["One two three."]
    assert len(idle.wire.sockets) == 1


async def test_a_silent_gateway_is_left(app: App) -> None:
    await app.page.clock.install()
    await app.load()
    await app.wait("client.state === 'open'")
    app.wire.socket.open = False  # it hears, and says nothing
    await app.page.clock.run_for(80_000)
    await app.wait("states.includes('waiting')")
    assert app.wire.of_type("ping")


async def test_too_long_a_history_is_halved(app: App) -> None:
    app.wire.reply = ["x" * 100_000]
    await app.wait("client.state === 'open'")
    for number in range(8):
        await app.run(f"await client.send({{ text: 'go' }}, 'n{number}'); return 1")
    assert await app.run("sessionStorage.app.length") < 600_000
    assert await app.run("turns().at(-1).id") == "n7"
    assert 1 < await app.run("turns().length") < 8


@pytest.mark.parametrize("kept", ["{", "null", '{"history": []}'])
async def test_nothing_of_use_is_kept(app: App, kept: str) -> None:
    await app.page.goto(app.page.url)
    await app.page.evaluate("(kept) => { sessionStorage.app = kept; }", kept)
    await app.page.evaluate(APP)
    await app.wait("client.state === 'open'")


async def test_it_breaks_wherever_it_can(app: App) -> None:
    await app.wait("client.state === 'open'")
    await app.run("Math.random = () => 0; return 1")  # for the shortest waits
    points: list[str | int] = ["sending", "accepting", "resuming", "resumed", 2, 3, 4, 5, 6]
    app.wire.breaks = dict.fromkeys(points, 1011)
    await app.page.evaluate(SEND)
    assert (await app.ended())["text"] == "One two three."
    assert await app.run("parts") == ["One ", "two ", "three."]
    assert app.wire.invoked == ["m1"]
    await until(lambda: app.wire.forgotten == 6)
    assert [event["event"] for event in await app.told("accepted")] == [2]
    assert app.wire.sessions == 1


async def test_a_client_that_knows_more_than_the_gateway_begins_anew(app: App) -> None:
    await app.wait("client.state === 'open'")
    app.wire.refuses = True
    app.wire.close(1012)
    await until(lambda: app.wire.sessions == 2)
    await app.wait("client.state === 'open'")


async def test_a_session_is_left_for_another(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    await app.run("client.restart()")
    done = await app.ended("cancelled")
    assert done["outcome"] == "unknown"
    await until(lambda: app.wire.sessions == 2)
    assert len(app.wire.of_type("session.close")) == 1
    await app.load()
    await app.wait("client.state === 'open'")
    assert app.wire.sessions == 2
    assert await app.run("client.history.map(({ type }) => type ?? 'turn')") == [
        "opened",
        "turn",
        "opened",
    ]


async def test_another_address_is_another_session(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    await app.page.reload()
    await app.page.evaluate(APP.replace('"/ws"', '"/ws/other"'))
    await until(lambda: app.wire.sessions == 2)
    assert (await app.ended("failed"))["error"]["outcome"] == "unknown"


async def test_an_address_that_is_none_is_said(idle: App) -> None:
    said = """
        const { SessionClient } = await import("/static/client.js");
        class WebSocket { constructor() { throw new SyntaxError("That is no address."); } }
        window.client = new SessionClient("htp://nowhere/ws", { WebSocket });
        client.connect();
        return await client.send("hi").catch(({ failure }) => [failure.outcome, client.state]);
    """
    assert await idle.run(said) == ["not_invoked", "closed"]


class TestAMessageWhoseAcceptanceIsLost:
    """The gateway has it; the event that says so could not be kept for the client."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def lost(self, app: App) -> App:
        """The client has come back, and has asked again, which nobody answers."""
        app.wire.reply = None
        app.wire.breaks["accepting"] = 1011
        await app.wait("client.state === 'open'")
        await app.page.evaluate(SEND)
        await until(lambda: app.wire.invoked == ["m1"])
        app.wire.forgotten = len(app.wire.log)
        app.wire.deaf = True
        await until(lambda: len(app.wire.of_type("message.send")) == 2)
        return app

    @pytest.mark.parametrize("loads", [False, True])
    async def test_it_is_not_sent_to_another_session(self, lost: App, loads: bool) -> None:
        if loads:
            await lost.load()
            await until(lambda: len(lost.wire.of_type("message.send")) == 3)
        sent = len(lost.wire.of_type("message.send"))
        lost.wire.emit("session.closed", reason="expired")
        lost.wire.close(1000)
        assert (await lost.ended("failed"))["error"]["outcome"] == "unknown"
        await lost.run("client.connect(); return 1")
        await lost.wait("client.state === 'open'")
        assert len(lost.wire.of_type("message.send")) == sent

    async def test_it_is_asked_for_after_another_load_of_the_page(self, lost: App) -> None:
        await lost.load()
        lost.wire.deaf = False
        await lost.wait("client.state === 'open'")
        lost.wire.done("m1", 0, text="Here.")
        assert (await lost.ended())["text"] == "Here."


async def test_a_turn_whose_end_is_lost_ends_after_another_load_of_the_page(app: App) -> None:
    app.wire.reply = None
    await app.wait("client.state === 'open'")
    await app.page.evaluate(SEND)
    await app.wait("client.lastEvent === 2")
    await app.wire.socket.close(1011)
    app.wire.done("m1", 0)
    app.wire.forgotten = len(app.wire.log)
    app.wire.deaf = True
    await until(lambda: len(app.wire.of_type("message.send")) == 2)
    app.wire.deaf = False
    await app.load()
    assert (await app.ended("failed"))["error"]["outcome"] == "invoked"
    assert app.wire.invoked == ["m1"]


async def test_a_storage_may_have_an_item_of_any_name(idle: App) -> None:
    await idle.run("sessionStorage.claim = 'of damage'; return 1")
    await idle.begin()
    await idle.page.evaluate(SEND)
    await idle.ended()
    await until(lambda: idle.wire.forgotten == 6)
    await idle.load()
    assert (await idle.ended())["text"] == "One two three."


async def test_of_what_is_forgotten_nothing_stays(idle: App) -> None:
    script = """
      const { History } = await import("/static/client/history.js");
      const history = new History({}, () => {});
      for (let i = 0; i < 3000; i += 1) {
        history.end(history.add(String(i), { text: "Count." }), { status: "completed" });
      }
      return [history.items.length <= history.most, history.changed.size <= history.most];
    """
    assert await idle.run(script) == [True, True]
