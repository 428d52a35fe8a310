"""client.js with a journal, which takes its time: nothing is said that is not kept."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from tests.browser.conftest import CONFIG
from tests.browser.scripted import ScriptedGateway, until
from tests.browser.test_resuming import SEND, App
from tests.support.processes import gateway
from tests.support.timing import UNIT

CLIENT = """async (journal, { connects = true, ...options } = {}) => {
  const { Claimed, SessionClient, Turn } = await import("/static/client.js");
  const { Conversations } = await import("/static/chat/conversations.js");
  const url = location.origin.replace("http", "ws") + "/ws/chat";
  window.commits = [];
  window.claims = 0;
  const slow = {
    claim: async () => { claims += 1; return null; },
    write: () => new Promise((commit, fail) => commits.push({ commit, fail })),
  };
  window.conversations ??= await Conversations.open("kept");
  const database = conversations.journal("one", "chat");
  const fails = (words) => () => { throw new Error(words); };
  const full = { ...database, claim: async () => { claims += 1; fails("full")(); } };
  const none = { ...full, read: fails("closed") };
  const late = { ...full, read: () => new Promise((read) => { window.reads = read; }) };
  const closing = {
    ...database,
    write: (...all) => window.broken ? fails("closed")() : database.write(...all),
  };
  window.memory = null;
  window.items = () =>
    [...memory.items].sort(([one], [other]) => one - other).map(([, item]) => item);
  const everything = () => memory && { ...memory.kept, history: items() };
  const deleted = {
    claim: async () => { claims += 1; return everything(); },
    read: async () => everything(),
    write: async (kept, items) => {
      if (window.gone) { window.gone = false; window.memory = null; throw new Claimed(); }
      memory = { kept, items: new Map([...(memory?.items ?? []), ...items]) };
    },
  };
  const storage = { slow, none, full, late, closing, deleted }[journal] ?? database;
  window.client = new SessionClient(url, { storage, ...options });
  window.told = [];
  for (const type of ["opened", "gap", "restored", "unsaved"]) {
    client.addEventListener(type, ({ detail }) => told.push([type, detail]));
  }
  window.turns = () => client.history.filter((item) => item instanceof Turn);
  window.read = async (turn) => {
    window.parts = [];
    for await (const part of turn) parts.push(part);
  };
  if (connects) client.connect();
}"""


class Kept(App):
    """A page whose client has a journal."""

    journal = "database"

    async def begin(self) -> None:
        """Connect."""
        await self.page.evaluate(CLIENT, self.journal)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where client.js is served; nothing here speaks to the gateway behind it."""
    config: Path = tmp_path_factory.mktemp("files") / "gateway.toml"
    config.write_text(CONFIG.format(url="http://127.0.0.1:9"))
    with gateway(config) as process:
        yield process.url


@pytest_asyncio.fixture(loop_scope="session")
async def app(browser: Browser, files: str) -> AsyncIterator[Kept]:
    context = await browser.new_context()
    app = await opened(await context.new_page(), files, ScriptedGateway())
    yield app
    await context.close()


async def opened(page: Page, files: str, wire: ScriptedGateway) -> Kept:
    """A page that is about to connect."""
    page.set_default_timeout(20_000 * UNIT)
    await wire.play(page)
    await page.goto(f"{files}/page.json")
    return Kept(page, wire)


@pytest.mark.parametrize("point", ["sending", 2, 4, 6])
async def test_a_connection_breaks(app: Kept, point: str | int) -> None:
    app.wire.breaks[point] = 1011
    await app.begin()
    await app.page.evaluate(SEND)
    assert (await app.ended())["text"] == "One two three."
    assert await app.run("parts") == ["One ", "two ", "three."]
    assert app.wire.invoked == ["m1"]
    await until(lambda: app.wire.forgotten == 6)


async def test_what_is_kept_as_not_sent_is_not_sent_where_that_can_not_be_changed(
    app: Kept,
) -> None:
    """A reload would send it again."""
    app.journal = "closing"
    await app.begin()
    await app.wait("client.state === 'open'")
    app.wire.away = True
    await app.wire.socket.close(1011)
    await app.wait("client.state !== 'open'")
    await app.page.evaluate(SEND)
    kept = "(await conversations.items('one')).some(({ delivery }) => delivery === 'stored')"
    await until(lambda: app.run(kept))
    await app.run("window.broken = true; return 1")
    app.wire.away = False
    await app.run("client.connect(); return 1")
    error = (await app.ended("failed"))["error"]
    assert (error["code"], error["outcome"]) == ("unavailable", "not_invoked")
    await app.run("client.send({ text: 'Another.' }, 'm2'); return 1")
    await until(lambda: app.wire.invoked == ["m2"])


@pytest.mark.parametrize("point", [2, 4])
async def test_the_page_is_loaded_again_in_the_middle(app: Kept, point: int) -> None:
    await app.begin()
    app.wire.reply = None
    await app.page.evaluate(SEND)
    await until(lambda: app.wire.invoked == ["m1"])
    parts = ["One ", "two ", "three."]
    app.wire.answer("m1", *parts[: point - 2])
    await app.wait(f"client.lastEvent === {point}")
    await app.load()
    app.wire.answer("m1", *parts[point - 2 :], start=point - 2)
    app.wire.done("m1", 3)
    await app.wait("turns().length === 1 && turns()[0].ended")
    assert await app.run("turns()[0].text") == "One two three."
    assert await app.run("turns()[0].incomplete") is False
    assert app.wire.invoked == ["m1"]
    await until(lambda: app.wire.forgotten == 6)
    await app.load()
    await app.wait("turns().length === 1 && turns()[0].ended")
    assert await app.run("client.history.map((item) => item.type ?? item.text)") == [
        "opened",
        "One two three.",
    ]


async def test_what_is_said_while_it_is_read_comes_last(app: Kept) -> None:
    await app.begin()
    await app.page.evaluate(SEND)
    await app.ended()
    await until(lambda: app.wire.forgotten == 6)
    await app.page.reload()
    app.wire.reply = ["Four."]
    await app.page.evaluate(f"(async () => {{ await ({CLIENT})('database'); }})()")
    await app.run("client.send('And then?', 'm2'); return 1")
    await app.wait("turns().length === 2 && turns().every((turn) => turn.ended)")
    assert await app.run("turns().map((turn) => turn.text)") == ["One two three.", "Four."]


class TestWhatIsNotKeptYet:
    @pytest_asyncio.fixture(loop_scope="session")
    async def slow(self, app: Kept) -> Kept:
        """Its journal keeps something when it is told to."""
        app.journal = "slow"
        await app.begin()
        await app.wait("commits.length === 1")  # that there is a session
        return app

    async def test_a_message_waits(self, slow: Kept) -> None:
        await slow.page.evaluate(SEND)
        await slow.page.wait_for_timeout(50 * UNIT)
        assert slow.wire.of_type("message.send") == []
        await slow.run("commits[0].commit(); return 1")
        await slow.wait("commits.length === 2")  # that it is about to be written
        assert slow.wire.of_type("message.send") == []
        await slow.run("commits[1].commit(); return 1")
        await until(lambda: slow.wire.invoked == ["m1"])

    async def test_no_event_is_acknowledged(self, slow: Kept) -> None:
        await slow.page.evaluate(SEND)
        await slow.run("commits[0].commit(); return 1")
        await slow.wait("commits.length === 2")
        await slow.run("commits[1].commit(); return 1")
        await slow.ended()
        await slow.wait("commits.length === 3")
        assert slow.wire.forgotten == 0
        await slow.run("commits[2].commit(); return 1")
        await until(lambda: slow.wire.forgotten > 0)

    async def test_without_room_events_stay_with_the_gateway(self, slow: Kept) -> None:
        await slow.page.evaluate(SEND)
        for number in range(3):
            await slow.wait(f"commits.length === {number + 1}")
            await slow.run(f"commits[{number}].fail(new Error('full')); return 1")
        assert (await slow.ended())["text"] == "One two three."
        assert slow.wire.forgotten == 0
        assert [kind for kind, _ in await slow.run("told")].count("unsaved") == 3

    async def test_what_waits_goes_with_its_connection(self, slow: Kept) -> None:
        await slow.page.evaluate(SEND)
        slow.wire.close(1011)
        await until(lambda: len(slow.wire.sockets) == 2)
        await slow.run("setInterval(() => commits.forEach(({ commit }) => commit())); return 1")
        await until(lambda: slow.wire.invoked == ["m1"])
        assert len(slow.wire.of_type("message.send")) == 1
        assert await slow.run("claims") == 1

    async def test_it_is_claimed_again_after_another_has_taken_it(self, slow: Kept) -> None:
        slow.wire.close(4409)
        await slow.wait("client.code === 4409")
        await slow.run("client.connect(); return 1")
        await slow.run("commits[0].commit(); return 1")
        await slow.wait("claims === 2")


async def test_two_windows_have_the_same_conversation(app: Kept, files: str) -> None:
    await app.begin()
    await app.page.evaluate(SEND)
    await app.ended()
    await until(lambda: app.wire.forgotten == 6)
    other = await opened(await app.page.context.new_page(), files, app.wire)
    await other.begin()
    await app.wait("client.code === 4409")
    await other.run("await client.send('And then?', 'm2'); return 1")
    await until(lambda: app.wire.forgotten == len(app.wire.log))
    assert await app.run("turns().length") == 1
    await app.run("client.connect(); return 1")
    await other.wait("client.code === 4409")
    assert await app.run("turns().map((turn) => turn.id)") == ["m1", "m2"]
    await app.run("await client.send('Well?', 'm3'); return 1")
    assert app.wire.invoked == ["m1", "m2", "m3"]
    assert await app.run("told.filter(([type]) => type === 'gap')") == []


async def test_a_window_that_has_lost_its_claim_stops(app: Kept, files: str) -> None:
    """Though the gateway has not said so: it may be that another session was opened."""
    await app.begin()
    await app.wait("client.state === 'open'")
    other = await opened(await app.page.context.new_page(), files, ScriptedGateway())
    await other.page.evaluate(
        """async () => {
          const { Conversations } = await import("/static/chat/conversations.js");
          await (await Conversations.open("kept")).journal("one", "chat").claim();
        }"""
    )
    await app.page.evaluate(SEND)
    await app.wait("client.code === 4409")
    assert app.wire.invoked == []
    assert await app.run("turns()[0].ended") is None


class TestWithoutAConnection:
    @pytest_asyncio.fixture(loop_scope="session")
    async def loaded(self, app: Kept) -> Kept:
        """A conversation of one turn, on a page that was loaded again."""
        await app.begin()
        await app.page.evaluate(SEND)
        await app.ended()
        await until(lambda: app.wire.forgotten == 6)
        await app.page.reload()
        await app.page.evaluate(f"() => ({CLIENT})('database', {{ connects: false }})")
        return app

    async def test_it_is_read(self, loaded: Kept) -> None:
        assert await loaded.run("[client.resumable, client.history]") == [False, []]
        await loaded.run("await Promise.all([client.restore(), client.restore()]); return 1")
        assert await loaded.run("client.resumable") is True
        assert await loaded.run("turns().map((turn) => turn.text)") == ["One two three."]
        assert await loaded.run("told.map(([type]) => type)") == ["restored"]
        assert len(loaded.wire.sockets) == 1
        assert await loaded.run("client.state") == "closed"

    async def test_it_goes_on(self, loaded: Kept) -> None:
        await loaded.run("await client.restore(); return 1")
        await loaded.run("client.connect(); await client.send('And then?', 'm2'); return 1")
        assert await loaded.run("turns().length") == 2
        assert await loaded.run("told.map(([type]) => type)") == ["restored"]
        assert loaded.wire.sessions == 1

    async def test_another_window_that_has_gone_on_meanwhile(self, app: Kept, files: str) -> None:
        """No session is opened beside the other window's, and its own is taken back."""
        await app.page.evaluate(f"() => ({CLIENT})('database', {{ connects: false }})")
        await app.run("await client.restore(); return 1")
        other = await opened(await app.page.context.new_page(), files, app.wire)
        await other.begin()
        await other.page.evaluate(SEND)
        await other.ended()
        await until(lambda: app.wire.forgotten == 6)
        await app.run("client.connect(); client.send('And then?', 'm2'); return 1")
        await app.wait("client.code === 4409")
        assert app.wire.sessions == 1
        await app.run("client.connect(); return 1")
        await app.wait("turns().length === 2 && turns().every((turn) => turn.ended)")
        assert app.wire.invoked == ["m1", "m2"]
        assert app.wire.sessions == 1

    async def test_it_is_left_while_it_is_read(self, loaded: Kept) -> None:
        await loaded.run("client.restore(); client.detach(); client.connect(); return 1")
        await loaded.run("await client.send('And then?', 'm2'); return 1")
        await until(lambda: loaded.wire.forgotten == len(loaded.wire.log))
        assert await loaded.run("turns().map(({ id }) => id)") == ["m1", "m2"]
        assert loaded.wire.sessions == 1

    async def test_it_is_read_while_a_connection_is_asked_for(self, loaded: Kept) -> None:
        await loaded.run("client.connect(); await client.restore(); return 1")
        assert await loaded.run("turns().length") == 1
        await loaded.wait("client.state === 'open'")
        assert loaded.wire.sessions == 1
        assert await loaded.run("told.map(([type]) => type)") == ["restored"]


class TestBeforeItIsRead:
    @pytest_asyncio.fixture(loop_scope="session")
    async def loaded(self, app: Kept) -> Kept:
        """One turn is kept; the page was loaded again, and its script has not run."""
        await app.begin()
        await app.page.evaluate(SEND)
        await app.ended()
        await until(lambda: app.wire.forgotten == 6)
        await app.page.reload()
        app.wire.reply = ["Four."]
        return app

    async def begin_and(self, app: Kept, script: str) -> None:
        """Run a script in the task that connects."""
        await app.page.evaluate(f"(async () => {{ await ({CLIENT})('database'); {script} }})()")

    async def test_what_is_said_takes_nobodys_place(self, loaded: Kept) -> None:
        await self.begin_and(loaded, "client.send('And then?', 'm2')")
        await loaded.wait("turns().length === 2 && turns().every((turn) => turn.ended)")
        kept = "(await conversations.items('one')).map(({ type, id }) => type ?? id)"
        await until(lambda: loaded.wire.forgotten == 9)
        assert await loaded.run(kept) == ["opened", "m1", "m2"]
        assert loaded.wire.sessions == 1

    async def test_another_message_under_an_id_that_was_used_is_refused(self, loaded: Kept) -> None:
        script = "client.send('Else.', 'm1').catch(({ failure }) => { window.refused = failure; })"
        await self.begin_and(loaded, script)
        await loaded.wait("window.refused")
        refused = await loaded.run("refused")
        assert (refused["code"], refused["outcome"]) == ("bad_message", "not_invoked")
        assert await loaded.run("turns().map((turn) => turn.text)") == ["One two three."]
        await loaded.run("await client.send('And then?', 'm2'); return 1")
        assert loaded.wire.invoked == ["m1", "m2"]

    async def test_what_was_said_before_is_the_same_turn(self, loaded: Kept) -> None:
        await self.begin_and(loaded, "window.again = client.send('Count.', 'm1')")
        assert await loaded.run("(await again).text") == "One two three."
        assert loaded.wire.invoked == ["m1"]


async def test_what_had_no_claim_to_be_sent_is_sent_with_the_next(app: Kept) -> None:
    await app.begin()
    await app.wait("client.state === 'open'")
    await app.run("await conversations.journal('one', 'chat').claim(); return 1")
    await app.page.evaluate(SEND)
    await app.wait("client.code === 4409")
    await app.run("client.connect(); return 1")
    assert (await app.ended())["text"] == "One two three."
    assert await app.run("parts") == ["One ", "two ", "three."]
    assert app.wire.invoked == ["m1"]


async def test_a_conversation_that_was_deleted_is_kept_as_a_whole_again(app: Kept) -> None:
    app.journal = "deleted"
    await app.begin()
    await app.page.evaluate(SEND)
    await app.ended()
    await until(lambda: app.wire.forgotten == 6)
    await app.run("window.gone = true; await client.send('And then?', 'm2'); return 1")
    await until(lambda: app.wire.forgotten == len(app.wire.log))
    kept = "items().map(({ type, id }) => type ?? id)"
    assert await app.run(kept) == ["opened", "m1", "m2"]
    assert await app.run("[claims, client.state]") == [2, "open"]


async def test_a_journal_that_fails_underneath_leaves_events_with_the_gateway(app: Kept) -> None:
    app.journal = "closing"
    await app.begin()
    await app.page.evaluate(SEND)
    await app.ended()
    await until(lambda: app.wire.forgotten == 6)
    await app.run("window.broken = true; await client.send('And then?', 'm2'); return 1")
    assert app.wire.invoked == ["m1", "m2"]
    unsaved = "told.filter(([type]) => type === 'unsaved').length"
    await app.wait(f"{unsaved} > 1")
    app.wire.close(1011)
    await until(lambda: len(app.wire.sockets) == 2)
    await app.run("await client.send('Well?', 'm3'); return 1")
    assert app.wire.forgotten == 6
    await app.run("window.broken = false; await client.send('So?', 'm4'); return 1")
    await until(lambda: app.wire.forgotten == len(app.wire.log))
    kept = "(await conversations.items('one')).map(({ type, id }) => type ?? id)"
    assert await app.run(kept) == ["opened", "m1", "m2", "m3", "m4"]


class TestAClaimThatFails:
    @pytest_asyncio.fixture(loop_scope="session")
    async def full(self, app: Kept) -> Kept:
        """One turn was answered, another was under way, and now there is no room for a claim."""
        await app.begin()
        await app.page.evaluate(SEND)
        await app.ended()
        app.wire.reply = None
        await app.run("client.send('And then?', 'm2'); return 1")
        await until(lambda: app.wire.invoked == ["m1", "m2"])
        await app.wait("turns()[1].delivery === 'accepted'")
        await app.page.reload()
        app.wire.reply = ["Four."]
        app.journal = "full"
        return app

    async def test_what_is_kept_is_shown(self, full: Kept) -> None:
        await full.page.evaluate(f"() => ({CLIENT})('full', {{ connects: false }})")
        await full.run("await client.restore(); return 1")
        assert await full.run("turns()[0].text") == "One two three."
        error = await full.run("turns()[1].ended.error")
        assert (error["code"], error["outcome"]) == ("session_lost", "unknown")
        assert await full.run("[client.resumable, client.state]") == [False, "closed"]
        assert await full.run("told.map(([type]) => type)") == ["restored", "unsaved"]
        assert len(full.wire.sockets) == 1

    async def test_another_session_is_opened_and_nothing_is_claimed_again(self, full: Kept) -> None:
        await full.begin()
        await full.run("await client.send('Well?', 'm3'); return 1")
        full.wire.close(1011)
        await until(lambda: len(full.wire.sockets) == 3)
        await full.run("await client.send('So?', 'm4'); return 1")
        assert full.wire.invoked == ["m1", "m2", "m3", "m4"]
        assert full.wire.sessions == 2
        assert await full.run("turns().map(({ id }) => id)") == ["m1", "m2", "m3", "m4"]
        assert await full.run("claims") == 1
        kinds = [kind for kind, _ in await full.run("told")]
        assert (kinds.count("unsaved"), kinds.count("restored")) == (1, 1)
        opened = [detail for kind, detail in await full.run("told") if kind == "opened"]
        assert [each["replaces"] for each in opened] == ["session-1"]
        kept = "(await conversations.items('one')).map(({ type, id }) => type ?? id)"
        assert await full.run(kept) == ["opened", "m1", "m2"]

    async def test_what_is_said_meanwhile_goes_to_the_new_session(self, full: Kept) -> None:
        script = "window.again = client.send('And then?', 'm2'); client.send('Well?', 'm3')"
        await full.page.evaluate(f"(async () => {{ await ({CLIENT})('full'); {script} }})()")
        await full.wait("turns().length === 3 && turns()[2].ended")
        assert full.wire.invoked == ["m1", "m2", "m3"], "nor is what was under way sent again"
        again = await full.run("again.catch(({ failure }) => failure)")
        assert again["outcome"] == "unknown"

    async def test_a_connection_waits_until_it_is_read(self, full: Kept) -> None:
        await full.page.evaluate(f"() => ({CLIENT})('late', {{ connects: false }})")
        await full.run("client.restore(); return 1")
        await full.wait("window.reads")
        await full.run("client.connect(); client.send('Well?', 'm3'); return 1")
        await full.page.wait_for_timeout(50 * UNIT)
        assert len(full.wire.sockets) == 1
        await full.run("reads(await conversations.journal('one', 'chat').read()); return 1")
        await full.wait("turns().length === 3 && turns()[2].ended")
        assert await full.run("turns()[2].text") == "Four."
        assert await full.run("client.resumable")

    async def test_what_can_not_be_read_either_is_left(self, full: Kept) -> None:
        full.journal = "none"
        await full.begin()
        assert await full.run("(await client.send('Well?', 'm3')).text") == "Four."
        assert [kind for kind, _ in await full.run("told")] == ["unsaved", "opened"]
        assert full.wire.sessions == 2
        assert full.wire.forgotten == 0


async def test_a_session_that_was_told_is_known_as_told_after_a_reload(app: Kept) -> None:
    options = {"sendHistory": {"turns": 10, "bytes": 1000}, "hold": True}
    await app.page.evaluate(f"(options) => ({CLIENT})('database', options)", options)
    await app.page.evaluate(SEND)
    await app.ended()
    await until(lambda: app.wire.forgotten == 6)

    async def told(route: Route) -> None:
        """Open a session as over HTTP: nobody is there to hear of it."""
        app.wire.breaks = {"resuming": 4503}
        app.wire.sessions += 1
        app.wire.log = [{**app.wire.log[0], "session_id": "session-2", "resume_key": "told"}]
        app.wire.keys, app.wire.forgotten = ["told"], 0
        body = {"session_id": "session-2", "resume_key": "told", "context": "sent"}
        await route.fulfill(status=201, json=body)

    await app.page.route("**/v1/routes/chat/sessions", told)
    app.wire.close(4410)
    await until(lambda: app.wire.sessions == 2 and app.wire.breaks == {})
    await app.page.reload()
    await app.page.evaluate(f"(options) => ({CLIENT})('database', options)", options)
    await app.run("await client.send('And then?', 'm2'); return 1")
    opened = [detail for kind, detail in await app.run("told") if kind == "opened"]
    assert [each["sentHistory"] for each in opened] == [{"all": True, "context": "sent"}]
    assert app.wire.sessions == 2
