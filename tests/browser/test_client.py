"""client.js and view.js as an app would use them: imported alone, on a page of the gateway."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import expect

from gateway.errors import CloseCode
from tests.browser.conftest import Chat
from tests.support.processes import Process, admin

Client = "const { SessionClient } = await import('/static/client.js');"


async def run(chat: Chat, script: str) -> Any:
    """The value of a script's ``return``."""
    return await chat.page.evaluate(f"async () => {{ {script} }}")


async def test_every_close_code_is_described(chat: Chat) -> None:
    script = (
        "const { CLOSE_CODES } = await import('/static/client.js');"
        "return [...CLOSE_CODES].map(([code, { reconnect }]) => [code, reconnect]);"
    )
    described = dict(await run(chat, script))
    assert set(CloseCode) <= set(described)
    never = {1000, 1009, 4400, 4401, 4403, 4404, 4406, 4409}
    assert {code for code in CloseCode if described[code] == "no"} == never
    assert {code for code in CloseCode if described[code] == "now"} == {1012}
    assert {code for code in CloseCode if described[code] == "new"} == {4410}


async def test_backoff_grows_is_jittered_and_bounded(chat: Chat) -> None:
    script = (
        "const { backoff } = await import('/static/client.js');"
        "return [backoff(0, 1), backoff(1, 1), backoff(2, 0.5), backoff(50, 1), backoff(9, 0)];"
    )
    assert await run(chat, script) == [500, 1000, 1000, 30_000, 0]


async def test_an_app_sends_and_is_answered(chat: Chat) -> None:
    script = f"""{Client}
        const client = new SessionClient(`ws://${{location.host}}/ws/chat`);
        client.connect();
        const first = await client.send({{ text: "My name is Ada." }});
        const second = await client.send({{ base64: btoa("What is my name?") }});
        const failed = await client.send({{ text: "/fail 418" }}).catch((error) => error.failure);
        const refused = await client
          .send({{ text: "hi", target_model: "m" }})
          .catch((error) => error.failure);
        const closed = new Promise((resolve) => client.addEventListener("closed", resolve));
        client.close();
        return [first.text, second.text, failed, refused, (await closed).detail.reason];
    """
    first, second, failed, refused, reason = await run(chat, script)
    assert "Hello Ada" in first
    assert "Your name is Ada." in second
    assert (failed["code"], failed["outcome"]) == ("model_error", "invoked")
    assert (refused["code"], refused["outcome"]) == ("forbidden", "not_invoked")
    assert reason == "client"


async def test_what_can_be_sent(chat: Chat) -> None:
    script = f"""{Client}
        const client = new SessionClient(`ws://${{location.host}}/ws`);
        client.connect();
        const json = {{ says: "before" }};
        const bodies = ["/echo one", {{ text: "/echo two" }}, {{ base64: btoa("/echo three") }},
          {{ bytes: new TextEncoder().encode("/echo four") }},
          {{ bytes: new TextEncoder().encode("/echo five").buffer }}, {{ json }}];
        const turns = bodies.map((body) => client.send(body));
        json.says = "after";
        const done = await Promise.all(turns);
        client.close();
        return [...done.slice(0, 5).map(({{ text }}) => text), turns[5].sent];
    """
    five = ["one", "two", "three", "four", "five"]
    assert await run(chat, script) == [*five, {"json": {"says": "before"}}]


async def test_what_is_no_message_is_not_taken(chat: Chat) -> None:
    bodies = [
        "5",
        "null",
        "[1]",
        "{}",
        "{ inputs: 'Hello' }",
        "{ text: 5 }",
        "{ base64: 5 }",
        "{ bytes: 5 }",
        "{ json: undefined }",
        "{ json: () => 1 }",
        "{ json: 1n }",
        "{ text: 'a', json: 1 }",
        "{ text: 'a', bytes: new ArrayBuffer(1) }",
    ]
    script = f"""{Client}
        const client = new SessionClient(`ws://${{location.host}}/ws`);
        const thrown = (body) => {{
          try {{ client.send(body); }} catch (error) {{ return error.name; }}
        }};
        return [[{", ".join(bodies)}].map(thrown), client.history];
    """
    assert await run(chat, script) == [["TypeError"] * len(bodies), []]


async def test_a_running_message_is_stopped(chat: Chat) -> None:
    script = f"""{Client}
        const client = new SessionClient(`ws://${{location.host}}/ws`);
        client.connect();
        const slow = client.send({{ text: "/sleep 60" }}, "slow");
        client.addEventListener("accepted", () => client.cancel("slow"));
        const done = await slow;
        client.close();
        return done.status;
    """
    assert await run(chat, script) == "cancelled"


async def test_an_id_that_was_used_before(chat: Chat) -> None:
    script = f"""{Client}
        const client = new SessionClient(`ws://${{location.host}}/ws`);
        client.connect();
        const ask = (text) => client.send({{ text }}, "a").then((done) => done.text,
          (error) => [error.failure.code, error.failure.outcome]);
        const [first, second, other] = await Promise.all([ask("hi"), ask("hi"), ask("ho")]);
        const third = await ask("hi");
        client.close();
        return [first === second, first === third, other];
    """
    assert await run(chat, script) == [True, True, ["bad_message", "not_invoked"]]


async def test_what_was_never_sent_was_not_invoked(chat: Chat) -> None:
    script = f"""{Client}
        const client = new SessionClient(`ws://${{location.host}}/elsewhere`);
        const waiting = new Promise((resolve) =>
          client.addEventListener("state", () => client.state === "waiting" && resolve()));
        client.connect();
        const early = client.send({{ text: "hi" }}).catch((error) => error.failure.outcome);
        await waiting;
        client.close();
        const late = client.send({{ text: "hi" }}).catch((error) => error.failure.outcome);
        return [await early, client.state, await late];
    """
    assert await run(chat, script) == ["not_invoked", "closed", "not_invoked"]
    chat.complaints.clear()  # Chromium's own, of the refused handshake


async def test_a_client_that_was_closed_does_not_come_back(
    new_chat: Callable[..., Any], start_gateway: Callable[..., Process], platform: Process
) -> None:
    chat = await new_chat()
    gateway = start_gateway()
    await chat.open(gateway.url)
    await chat.page.evaluate(
        f"""async () => {{
        {Client}
        window.client = new SessionClient(`ws://${{location.host}}/ws`);
        client.connect();
        await new Promise((resolve) => client.addEventListener("opened", resolve));
        window.ended = new Promise((resolve) =>
          client.addEventListener("state", () => resolve(client.state)));
    }}"""
    )
    admin(platform, "/faults", delay_seconds=60)
    await chat.page.evaluate("client.close()")
    gateway.popen.kill()
    assert await chat.page.evaluate("window.ended") == "closed"
    chat.complaints.clear()  # Chromium's own, of the page's attempts to connect


@pytest.mark.parametrize(
    ("route", "words"), [("nowhere", "The route does not exist."), ("a b", "route does not exist")]
)
async def test_a_connection_that_may_not_come_back(chat: Chat, route: str, words: str) -> None:
    script = f"""{Client}
        const {{ routeUrl }} = await import('/static/chat/view.js');
        const client = new SessionClient(routeUrl(location.href, {route!r}));
        const closed = new Promise((resolve) =>
          client.addEventListener("state", () => client.state === "closed" && resolve()));
        client.connect();
        await closed;
        const late = await client.send("hi").catch((error) => error.failure);
        return [client.reason, late];
    """
    reason, late = await run(chat, script)
    assert words in reason
    assert late == {
        "code": "unknown_route",
        "message": reason,
        "outcome": "not_invoked",
        "retryable": False,
    }


async def test_an_unknown_subprotocol_can_be_told_from_a_lost_connection(chat: Chat) -> None:
    script = """
        const socket = new WebSocket(`ws://${location.host}/ws`, "v9.json.session-gateway");
        return await new Promise((resolve) => (socket.onclose = ({ code }) => resolve(code)));
    """
    assert await run(chat, script) == 4406


async def test_replies_in_words(chat: Chat) -> None:
    script = """
        const { replyText, untilExpiry } = await import('/static/chat/view.js');
        const done = { id: "a", status: "completed", duration_ms: 1 };
        const json = (value) => replyText({
          ...done, text: JSON.stringify(value), content_type: "application/json" });
        return [
          json({ generated_text: "one" }),
          json([{ generated_text: "two" }]),
          json({ choices: [{ message: { content: "three" } }] }),
          json({ choices: [{ text: "four" }] }),
          replyText({ ...done, json: { text: "five" } }),
          json({ other: 1 }),
          replyText({ ...done, text: "{", content_type: "application/json" }),
          replyText({ ...done, status: "cancelled", text: "six" }),
          untilExpiry("2027-01-15T08:20:00Z", Date.parse("2027-01-15T08:18:55Z")),
          untilExpiry("2027-01-15T08:20:00Z", Date.parse("2027-01-15T08:20:01Z")),
          untilExpiry(null, 0),
        ];
    """
    assert await run(chat, script) == [
        "one",
        "two",
        "three",
        "four",
        "five",
        '{\n  "other": 1\n}',
        "{",
        "six",
        "1 min 5 s left",
        "expired",
        "no expiry known",
    ]
    await expect(chat.state).to_have_text("Connected")
