"""Secrets in files, of programs and in objects: none is told with what is wrong with them."""

import json
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from gateway.admission import Credentials, Refused, Ticket
from gateway.errors import ErrorCode
from gateway.security.keys import KeyFileError, Keys, read
from gateway.security.keysets import FileKeys, KeysUnavailable
from gateway.security.principals import PrincipalLimits
from gateway.security.tokens import BadToken, Secret, Tokens
from tests.integration.conftest import AWS, Start
from tests.support.client import client
from tests.support.forks import Fork
from tests.support.processes import gateway
from tests.support.secrets import check, found, plant, planted
from tests.support.timing import UNIT
from tests.support.tokens import add_key


def printed(*arguments: str) -> str:
    """What a command writes that is refused."""
    process = Fork(arguments)
    with process.stdout:
        said = process.stdout.read()
    assert process.wait(20 * UNIT) == 2, said
    return said


ROUTE = '[routes.chat]\nendpoint_name = "e"\n'
LEAST = f'[aws]\nregion = "us-east-1"\n{ROUTE}'


@pytest.mark.parametrize("command", ["serve", "check"])
def test_files(tmp_path: Path, command: str) -> None:
    """A key where its digest should be, and so on."""
    keys, tokens = tmp_path / "keys.toml", tmp_path / "jwks.json"
    secret = plant("a key in a file")
    jwt_file = f'[auth.jwt]\nissuer = "i"\naudience = "a"\njwks_file = "{tokens}"\n'
    hs256 = f'[auth.jwt]\nissuer = "i"\naudience = "a"\nsecret_file = "{tokens}"\n'
    file = tmp_path / "gateway.toml"
    digest = "0" * 64
    for auth, path, text in (
        *(
            (f'[auth.keys]\nfile = "{keys}"\n', keys, text)
            for text in (
                f'[ada]\nsha256 = "{secret}"\n',
                f"[ada]\nsha256 = {secret}\n",
                f'[ada]\nsha256 = "{digest}"\n"{secret}" = 1\n',
                f'[ada]\nsha256 = "{digest}"\nroutes = "{secret}"\n',
                f'["{secret}"]\nsha256 = "{digest}"\n',
                f'"{secret}" = 1\n',
            )
        ),
        *(
            (jwt_file, tokens, text)
            for text in (secret, f'{{"keys": ["{secret}"]}}', f'{{"{secret}": 1}}')
        ),
        (hs256, tokens, secret[:20]),
    ):
        path.write_text(text)
        file.write_text(auth + LEAST)
        check(printed(command, "--config", str(file)))
    file.write_text(hs256.replace(str(tokens), plant("a secret, not its file")) + LEAST)
    check(printed(command, "--config", str(file)))


@pytest.mark.parametrize("how", ["wrong", "broken", "a program", "a program that fails"])
async def test_credentials(
    tmp_path: Path, how: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files and programs, as `check` and the log speak of them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    secret = plant("AWS's key in a file")
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    program = tmp_path / "program"
    credentials.write_text(
        {
            "wrong": f"[default]\naws_secret_access_key = {secret}\n",
            "broken": f"[default]\naws_access_key_id = a\n{secret}\n",
        }.get(how, f"[default]\ncredential_process = {program}\n")
    )
    fails = "exit 1" if how == "a program that fails" else ""
    said = json.dumps({"Version": secret, "SecretAccessKey": secret})
    program.write_text(f"#!/bin/sh\necho '{said}'\necho '{secret}' >&2\n{fails}\n")
    program.chmod(0o700)
    file = tmp_path / "gateway.toml"
    file.write_text(LEAST)
    said = printed("check", "--config", str(file))
    assert "redentials" in said
    check(said)
    aws = AWS.format(url="http://127.0.0.1:9", transport=transport)
    file.write_text(aws + ROUTE + '[server]\nlog_level = "DEBUG"\n')
    if how != "wrong":
        check(printed("serve", "--config", str(file), "--port", "0"))
        return
    with gateway(file) as process:
        async with client(process.websocket) as chat:
            await chat.send("session.open")
            error = await chat.until("error")
            assert error["code"] == "unavailable"
        await process.says("call failed")
        await process.says("calls to AWS will fail")
    check(json.dumps(error))


async def test_what_holds_them(tmp_path: Path) -> None:
    secret = plant("what an object holds")
    file = tmp_path / "file"
    file.write_text(secret)
    limits = PrincipalLimits(
        connections=1, sessions=1, messages_per_second=1.0, bytes_per_second=1.0
    )
    key = add_key(tmp_path / "keys.toml", "ada")
    keys = Keys(tmp_path / "keys.toml", limits)
    principal = keys.find(key)
    assert principal is not None
    kept = Secret(file)
    checker = Tokens(issuer="i", audience="a", algorithms=["HS256"], keys=kept, leeway=0)
    with pytest.raises(BadToken) as bad:
        await checker.check(jwt.encode({"jti": secret}, "x" * 32, "HS256"))
    with pytest.raises(KeyFileError) as broken:
        read(file)
    with pytest.raises(KeysUnavailable) as unavailable:
        FileKeys(file)
    things: list[object] = [
        Credentials(token=secret),
        Credentials(ticket=secret),
        Ticket(secret, 1.0),
        Refused(ErrorCode.UNAUTHENTICATED, "text"),
        kept,
        keys,
        principal,
        checker,
        bad.value,
        broken.value,
        unavailable.value,
    ]
    check(repr(things))
    check("".join(map(str, things)))


async def test_the_look_is_a_real_one(tmp_path: Path, start_local: Start, transport: str) -> None:
    """An origin is logged. Were it a secret, the test of whoever has started the gateway fails."""
    file = tmp_path / "gateway.toml"
    url = start_local().url
    file.write_text(AWS.format(url=url, transport=transport) + "[routes.chat]\nendpoint_name='e'\n")
    with planted("an origin") as secret:
        running = gateway(file)
        process = running.__enter__()
        origin = f"https://{secret.replace('/', '-').replace('+', '-')}"
        with pytest.raises(InvalidStatus):
            async with client(process.websocket, origin=origin):
                pass
        with pytest.raises(AssertionError, match="written, and may not be\nan origin: "):
            running.__exit__(None, None, None)
        assert found(process.output) == {"an origin"}
