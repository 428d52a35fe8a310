"""client.js and view.js as an app would use them: imported alone, on a page of the gateway."""

from typing import Any

import pytest
from playwright.async_api import expect

from gateway.errors import CloseCode
from tests.browser.conftest import Chat

Client = "const { SessionClient } = await import('/static/client.js');"


async def run(chat: Chat, script: str) -> Any:
    """The value of a script's ``return``."""
    return await chat.page.evaluate(f"async () => {{ {script} }}")


async def test_every_close_code_is_described(chat: Chat) -> None:
    script = (
        "const { CLOSE_CODES } = await import('/static/client.js');"
        "return [...CLOSE_CODES].map(([code, { comeBack }]) => [code, comeBack]);"
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


@pytest.mark.parametrize(
    ("route", "words"), [("nowhere", "There is no such route."), ("a b", "no such route")]
)
async def test_a_connection_that_may_not_come_back(chat: Chat, route: str, words: str) -> None:
    script = f"""{Client}
        const {{ routeUrl }} = await import('/static/view.js');
        const client = new SessionClient(routeUrl(location.href, {route!r}));
        const closed = new Promise((resolve) =>
          client.addEventListener("state", () => client.state === "closed" && resolve()));
        client.connect();
        await closed;
        const late = await client.send({{ text: "hi" }}).catch((error) => error.failure.outcome);
        return [client.reason, late];
    """
    reason, late = await run(chat, script)
    assert words in reason
    assert late == "not_invoked"


async def test_an_unknown_subprotocol_can_be_told_from_a_lost_connection(chat: Chat) -> None:
    script = """
        const socket = new WebSocket(`ws://${location.host}/ws`, "v9.json.session-gateway");
        return await new Promise((resolve) => (socket.onclose = ({ code }) => resolve(code)));
    """
    assert await run(chat, script) == 4406


async def test_replies_in_words(chat: Chat) -> None:
    script = """
        const { replyText, untilExpiry } = await import('/static/view.js');
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
