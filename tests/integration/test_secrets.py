"""Secrets are planted in whatever comes in, everything goes wrong, and none may be seen again.

Message ids are no secret. Who has sent a body sees it again, in a reply; nobody else does.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.conftest import AWS
from tests.support import parrot
from tests.support.client import JSON, MSGPACK, Client, client, in_time, raw
from tests.support.listener import listening
from tests.support.parrot import Parrot
from tests.support.processes import Process, aside, gateway
from tests.support.secrets import check, plant
from tests.support.timing import UNIT
from tests.support.tokens import AUDIENCE, ISSUER, Signer, add_key, claims, write_key_set

SIGNER = Signer("one")
CONFIG = """
[server]
log_level = "DEBUG"
log_format = "{form}"
[metrics]
port = 0
[auth.keys]
file = "{path}/keys.toml"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
jwks_file = "{path}/jwks.json"
[limits]
messages_per_second = 1000
[routes.chat]
endpoint_name = "my-endpoint"
session = "first-message"
content_type = "text/plain"
message_bytes = 100_000
retries = 0
[routes.streams]
endpoint_name = "my-endpoint"
session = "stateless"
stream = "sse"
text = "a"
content_type = "text/plain"
retries = 0
[routes.fast]
endpoint_name = "my-endpoint"
session = "stateless"
content_type = "text/plain"
queued_messages = 1
"""


class Stage:
    """A gateway, its endpoint, and what others see than who has sent a secret.

    What the gateway writes is looked at when it ends.

    Attributes:
        process: The gateway.
        parrot: The endpoint.
        ada: A key.
        seen: Answers, close reasons and errors.
    """

    def __init__(self, process: Process, parrot: Parrot, ada: str) -> None:
        self.process = process
        self.parrot = parrot
        self.ada = ada
        self.seen: list[str] = []

    @asynccontextmanager
    async def chat(
        self, subprotocol: str = JSON, *, route: str = "chat", token: str | None = None
    ) -> AsyncIterator[Client]:
        """A connection with a session."""
        headers = {"Authorization": f"Bearer {token or self.ada}"}
        async with client(
            self.process.websocket, subprotocol, route=route, additional_headers=headers
        ) as chat:
            await chat.open()
            yield chat
        self.seen.append(chat.socket.close_reason or "")

    async def refused(
        self, code: int, *subprotocols: str, first: Any = None, **options: Any
    ) -> None:
        """A connection that is closed with that code, after its first frame if there is one."""
        options.setdefault("additional_headers", {"Authorization": f"Bearer {self.ada}"})
        async with client(self.process.websocket, *(subprotocols or (JSON,)), **options) as chat:
            if first is not None:
                await chat.socket.send(first)
            got, reason = await chat.closed()
        assert got == code
        self.seen += [reason, json.dumps(chat.messages)]

    async def error(self, chat: Client, code: str) -> None:
        """The next error has that code."""
        while True:
            message = await chat.receive()
            error = message if message["type"] == "error" else message.get("error")
            if error is not None:
                self.seen.append(json.dumps(error))
                assert error["code"] == code
                return


@pytest.fixture(params=["console", "json"])
async def stage(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """One where another client looks on."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", plant("AWS's secret key"))
    monkeypatch.setenv("AWS_SESSION_TOKEN", plant("AWS's session token"))
    ada, bob = add_key(tmp_path / "keys.toml", "ada"), add_key(tmp_path / "keys.toml", "bob")
    write_key_set(tmp_path / "jwks.json", SIGNER)
    endpoint = Parrot()
    settings = CONFIG.format(path=tmp_path, form=request.param, issuer=ISSUER, audience=AUDIENCE)
    file = tmp_path / "gateway.toml"
    async with listening(endpoint.serve) as port:
        file.write_text(AWS.format(url=f"http://127.0.0.1:{port}", transport=transport) + settings)
        async with aside(gateway(file)) as process:
            stage = Stage(process, endpoint, ada)
            async with stage.chat(token=bob) as onlooker:
                yield stage
                await onlooker.ask("hi", "last")
                stage.seen.append(await metrics_of(process))
            for message in onlooker.messages:
                message.pop("resume_key", None)  # which is its own
            stage.seen.append(json.dumps(onlooker.messages))
    check("\n".join(stage.seen))


async def metrics_of(process: Process) -> str:
    """What whoever reads metrics sees: no principal either."""
    (line,) = [line for line in process.lines if "metrics are served" in line]
    (port,) = re.findall(r"port\W+(\d+)", line)
    async with httpx.AsyncClient(verify=False, timeout=20 * UNIT) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    assert 'session_gateway_connections{protocol="' in text
    assert not re.search(r"\b(ada|bob)\b", text)
    return text


def bearer(token: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {token}", "Cookie": plant("a cookie")}}


def encoded(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def unsigned() -> str:
    """A token without a signature."""
    return jwt.encode(claims(jti=plant("a token's id")), "", "none")


def tokens() -> list[str]:
    """Such as let nobody in."""
    now = int(time.time())
    return [
        f"sgk_{plant('a key that there is none of')}",
        plant("a token that is none"),
        Signer("one").token(),  # another key of that name
        Signer("two").token(),
        SIGNER.token(exp=now - 600),
        SIGNER.token(aud=plant("an audience")),
        SIGNER.token(iss=plant("an issuer")),
        SIGNER.token(sub=[plant("a subject")]),
        SIGNER.token(routes={plant("a route"): 1}),
        SIGNER.token(headers={"crit": [plant("a header")]}),
        unsigned(),
        "x" * 8000 + plant("a long token"),
    ]


async def test_what_visitors_show(stage: Stage) -> None:
    for token in tokens():
        await stage.refused(4401, **bearer(token))
        open_with = json.dumps({"type": "session.open", "token": token})
        await stage.refused(4401, first=open_with, additional_headers={})
        if len(token) < 4000:
            await stage.refused(4401, JSON, f"bearer.{encoded(token)}", additional_headers={})
    for kind in ("bearer.!", "ticket."):
        offered = kind + plant("no base64, and no ticket").replace("/", "-")
        await stage.refused(4401, JSON, offered, additional_headers={})
    await stage.refused(4406, f"bearer.{encoded(stage.ada)}", "unknown")
    await stage.refused(4404, route=f"none?token={quote(plant('a query'))}")
    with pytest.raises(InvalidStatus) as refused:
        async with client(
            stage.process.websocket, origin="https://x.example.com", **bearer(stage.ada)
        ):
            pass
    stage.seen.append(str(refused.value.response))
    async with stage.chat(token=SIGNER.token()) as chat:
        for token in tokens():
            await chat.send("auth.refresh", token=token)
            await stage.error(chat, "unauthenticated")
        await chat.send("auth.refresh", token=SIGNER.token(sub="bob"))
        await stage.error(chat, "forbidden")


async def test_first_messages(stage: Stage) -> None:
    secret = plant("a first message")
    for first in (
        secret,
        f'{{"type": "session.open", "token": "{secret}',
        secret.encode(),
        json.dumps({"type": "none", "token": secret}),
        json.dumps({"type": "message.send", "id": "1", "text": secret}),
        json.dumps({"type": "session.open", "token": secret * 500}),
    ):
        await stage.refused(4400, first=first)
    await stage.refused(4400, MSGPACK, first=b"\xc1" + secret.encode())
    for fields in ({"token": [secret]}, {"key": secret}, {"resume_key": secret}):
        async with client(stage.process.websocket, **bearer(stage.ada)) as chat:
            await chat.send("session.open", **fields)
            await stage.error(chat, "bad_message")
    async with stage.chat() as chat:
        opened = chat.messages[0]
    gone = {"type": "session.open", "session_id": opened["session_id"], "last_event": 1}
    for key in (secret, opened["resume_key"][:-1], opened["resume_key"] + "x"):
        await stage.refused(4410, first=json.dumps(gone | {"resume_key": key}))
    async with client(stage.process.websocket, **bearer(stage.ada)) as chat:
        past = {"resume_key": opened["resume_key"], "last_event": 99}
        await chat.socket.send(json.dumps(gone | past))
        await stage.error(chat, "bad_message")
        await chat.socket.send(json.dumps(gone | {"resume_key": opened["resume_key"]}))
        assert (await chat.receive())["type"] == "session.resumed"


async def test_bodies(stage: Stage) -> None:
    secret = plant("a body")
    data = secret.encode()
    bodies: list[dict[str, Any]] = [
        {"text": secret},
        {"json": {secret: [secret]}},
        {"base64": base64.b64encode(data).decode()},
    ]
    for subprotocol in (JSON, MSGPACK):
        async with stage.chat(subprotocol) as chat:
            more = [{"bytes": data}] if subprotocol == MSGPACK else []
            for number, body in enumerate([*bodies, *more]):
                custom = plant("custom attributes")
                await chat.send("message.send", id=f"m{number}", **body, custom_attributes=custom)
                done = await chat.until("message.done")
                assert done["status"] == "completed"
                assert custom in stage.parrot.heard[-1]
            await chat.send("message.send", id="m0", text=secret + "x")
            await stage.error(chat, "bad_message")
            await chat.send("message.send", id="x", text=secret, target_variant=secret)
            await stage.error(chat, "forbidden")
            for wrong in (
                {"text": secret, "json": secret},
                {"text": [secret]},
                {"base64": secret},
                {"text": secret, "custom_attributes": secret + "\n\u00e9"},
                {"text": secret, "texts": secret},
                {"text": secret, "stream": secret},
            ):
                await chat.send("message.send", id="y", **wrong)
                await stage.error(chat, "bad_message")
            await chat.send("message.cancel", id="none")
            await stage.error(chat, "unknown_message")
            await chat.send("ping", data=secret)
            await chat.until("pong")
            await chat.send("message.send", id="z", text=secret * 5000)
            assert (await chat.closed())[0] == 1009
    headers = {"Authorization": f"Bearer {stage.ada}"}
    for frame in (secret, data):
        async with raw(stage.process.websocket, "chat", additional_headers=headers) as socket:
            await socket.send(frame)
            assert await in_time(socket.recv())


BAD_REPLIES = [
    (parrot.model_error, "model_error"),
    (parrot.invalid, "validation_error"),
    (parrot.unsigned, "unavailable"),
    (parrot.other, "unavailable"),
    (parrot.page, "unavailable"),
    (parrot.garbage, "unavailable"),
    (parrot.cut, "stream_broken"),
]


async def test_replies(stage: Stage) -> None:
    """The endpoint repeats what it was sent, in each of its errors."""
    secret = plant("a body that comes back")
    headers = {"Authorization": f"Bearer {stage.ada}"}
    for answer, code in BAD_REPLIES:
        stage.parrot.answers.append(answer)
        async with stage.chat() as chat:
            custom = plant("custom attributes")
            await chat.send("message.send", id="1", text=secret, custom_attributes=custom)
            await stage.error(chat, code)
        stage.parrot.answers.append(answer)
        async with raw(stage.process.websocket, "chat", additional_headers=headers) as socket:
            await socket.send(secret)
            with pytest.raises(ConnectionClosed) as closed:
                await in_time(socket.recv())
        assert closed.value.rcvd is not None
        async with stage.chat() as chat:  # else the endpoint is not asked any more
            await chat.ask("hi", "1")
        stage.seen.append(closed.value.rcvd.reason)
    stage.parrot.answers.append(parrot.malformed)
    async with stage.chat() as chat:
        await chat.ask(secret, "1")
    await stage.process.says("malformed NewSessionId")


async def test_streams(stage: Stage) -> None:
    secret = plant("a body that is streamed back")
    for answer in (parrot.stream, parrot.broken_stream, parrot.cut, parrot.other):
        for text in (secret, f'data: {{"a": "{secret}"}}\n\ndata: {{"b": {secret}}}\n\n'):
            stage.parrot.answers.append(answer)
            async with stage.chat(route="streams") as chat:
                done = await chat.ask(text, "1")
                assert done["status"] == "failed"
                stage.seen.append(json.dumps(done["error"]))


async def test_http(stage: Stage) -> None:
    seen = stage.seen
    secret = quote(plant("a query"))
    once = httpx.Limits(max_keepalive_connections=0)
    url = stage.process.url
    async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT, limits=once) as http:
        for method, path, status in (
            ("GET", "/", 200),
            ("GET", "/healthz", 200),
            ("POST", "/healthz", 405),
            ("GET", f"/{secret}", 404),
            ("GET", "/ws", 426),
            ("GET", "/v1/tickets", 405),
            ("POST", "/v1/tickets", 401),
        ):
            for scheme in ("Bearer", "Basic", "Digest"):
                headers = {
                    "Authorization": f"{scheme} {plant('a header')}",
                    "Cookie": f"session={plant('a cookie')}",
                    "X-Forwarded-For": plant("an address"),
                }
                answer = await http.request(
                    method, f"{path}?token={secret}", headers=headers, content=plant("a request")
                )
                assert answer.status_code == status
                seen.append(f"{answer.headers} {answer.text}")
        headers = {"Authorization": f"Bearer {stage.ada}", "Origin": "https://x.example.com"}
        answer = await http.post("/v1/tickets", headers=headers)
        assert answer.status_code == 403
        seen.append(f"{answer.headers} {answer.text}")
    parts = urlsplit(stage.process.url)
    for request in (
        f"GET /{secret} HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nbad {secret}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret * 1000}\r\n\r\n",
        f"{secret}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n",
        f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: bearer.{secret}\r\n\r\n",
        f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f'Sec-WebSocket-Protocol: "bearer.{secret}"\r\n\r\n',
    ):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request.encode())
        answered = await in_time(reader.read())
        writer.close()
        assert answered.split()[1] in {b"400", b"405", b"431"}
        seen.append(answered.decode())
