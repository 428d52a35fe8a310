"""Several processes on one port: who is served, what is replaced, and how they end together."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.client import Notice, Resumed, connect
from gateway.local.valkey import LocalValkey
from gateway.security.keys import add
from tests.integration.conftest import Start
from tests.support.client import Client, client
from tests.support.processes import Process
from tests.support.timing import UNIT
from tests.support.tree import alive, children, gone

CONFIG = """
[server]
replica = "gw"
drain_seconds = {drain}
{server}
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
lease_seconds = 2
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
{more}
"""

OPENED = "connection opened"


@pytest.fixture
def start(start_gateway: Start, platform: Process, valkey: LocalValkey) -> Callable[..., Process]:
    """Start a gateway of two workers."""

    def start(*, drain: float = 20, server: str = "workers = 2", more: str = "") -> Process:
        config = CONFIG.format(valkey=valkey, drain=drain, server=server, more=more)
        return start_gateway(platform.url, config)

    return start


async def both(process: Process, stack: AsyncExitStack) -> list[Client]:
    """Clients with sessions; each worker has some of them."""
    clients: list[Client] = []
    begun = len(process.lines)
    while len(names(process, begun)) < 2:
        before = process.output.count(OPENED)
        clients.append(await stack.enter_async_context(client(process.websocket)))
        await clients[-1].open()
        await process.says(OPENED, before + 1)
    return clients


async def busy(process: Process, stack: AsyncExitStack, seconds: float) -> list[Client]:
    """Such clients, each with a turn that takes so long."""
    clients = await both(process, stack)
    for each in clients:
        await each.send("message.send", id="1", text=f"/sleep {seconds}")
        await each.until("message.accepted")
    return clients


async def drained(clients: list[Client]) -> None:
    """Wait until the turn of each is done, and its connection closed."""
    for each in clients:
        assert (await each.until("message.done"))["status"] == "completed"
        assert (await each.closed())[0] == 1012


def names(process: Process, begun: int = 0) -> set[str]:
    """Those of the workers that connections have come to.

    Args:
        process: Their parent.
        begun: From which line on.
    """
    opened = (line for line in process.lines[begun:] if OPENED in line)
    return {name for line in opened for name in re.findall(r"replica=(gw-[0-9a-f]{8})\b", line)}


async def replaced(process: Process, before: list[int]) -> list[int]:
    """Wait for as many workers as before that serve; all of them."""
    async with asyncio.timeout(30 * UNIT):
        while len(now := children(process.popen.pid)) < len(before) or now == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nobody tells
    return now


async def test_all_serve_on_one_port_and_it_is_said_once(start: Callable[..., Process]) -> None:
    process = start()
    async with AsyncExitStack() as stack:
        for each in await both(process, stack):
            assert (await each.ask("hi"))["status"] == "completed"
    workers = children(process.popen.pid)
    assert len(workers) == len(names(process)) == 2
    assert process.stop() == 0
    assert process.output.count("listening on") == 1
    assert not any(map(alive, workers))
    assert "Traceback" not in process.output


async def test_one_that_is_killed_is_replaced_and_its_clients_come_back(
    start: Callable[..., Process],
) -> None:
    process = start()
    workers = children(process.popen.pid)
    notices: list[Notice] = []
    async with AsyncExitStack() as stack:
        sessions = []
        while len(names(process)) < 2:
            session = connect(f"{process.websocket}/ws", on_notice=notices.append)
            sessions.append(await stack.enter_async_context(session))
            assert "Turn 1" in (await sessions[-1].send("hi", stream=False)).text
            await process.says(OPENED, len(sessions))
        os.kill(workers[0], signal.SIGKILL)
        for each in sessions:
            async with asyncio.timeout(60 * UNIT):
                assert "Turn 2" in (await each.send("hi", stream=False)).text
        assert any(isinstance(notice, Resumed) for notice in notices)
        await process.says("a worker has died")
        assert f"of=SIGKILL pid={workers[0]}" in process.output
        now = await replaced(process, workers)
        assert workers[1] in now
        while len(names(process)) < 3:  # the new one
            await (await stack.enter_async_context(client(process.websocket))).open()
    assert process.stop() == 0
    assert process.output.count("listening on") == 1


async def test_one_that_is_told_to_end_is_replaced_too(start: Callable[..., Process]) -> None:
    process = start()
    workers = children(process.popen.pid)
    os.kill(workers[0], signal.SIGTERM)
    await process.says("a worker has ended")
    assert workers[1] in await replaced(process, workers)
    assert process.stop() == 0
    assert "has died" not in process.output


async def test_one_that_dies_again_and_again_is_waited_for(start: Callable[..., Process]) -> None:
    process = start()
    pid, other = children(process.popen.pid)
    for pause in ("", "0.5", "1.0"):
        if pause:
            await process.says(f"again_in={pause}")
        (pid,) = {*await replaced(process, sorted({pid, other}))} - {other} if pause else (pid,)
        os.kill(pid, signal.SIGKILL)
    await process.says("again_in=2.0")
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=20 * UNIT, limits=fresh) as http:
        for _ in range(20):  # each time by one that is there
            assert (await http.get(f"{process.url}/healthz")).status_code == 200
    assert process.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_all_drain(start: Callable[..., Process], how: signal.Signals) -> None:
    process = start()
    async with AsyncExitStack() as stack:
        clients = await busy(process, stack, 0.5)
        process.popen.send_signal(how)
        await drained(clients)
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(httpx.get, f"{process.url}/healthz")
    assert process.wait() == 0


async def test_a_second_signal_ends_the_draining_of_all(start: Callable[..., Process]) -> None:
    process = start(drain=3600)
    async with AsyncExitStack() as stack:
        clients = await busy(process, stack, 3600)
        idle = await both(process, stack)
        process.popen.send_signal(signal.SIGTERM)
        for each in idle:
            await each.closed()
        process.popen.send_signal(signal.SIGTERM)
        for each in clients:
            assert (await each.closed())[0] == 1012
    assert process.wait() == 0


async def test_one_that_dies_while_it_drains_is_a_failure(start: Callable[..., Process]) -> None:
    process = start(drain=3600)
    workers = children(process.popen.pid)
    async with AsyncExitStack() as stack:
        idle = await both(process, stack)
        await busy(process, stack, 3600)
        process.popen.send_signal(signal.SIGTERM)
        for each in idle:
            await each.closed()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    assert process.wait() == 1
    assert process.output.count("a worker has died") == 2
    assert "again_in" not in process.output


async def test_ctrl_c_in_a_terminal_lets_turns_finish(
    platform: Process, valkey: LocalValkey, tmp_path: Path
) -> None:
    """It goes to all processes of the group, which is as if each had been sent it."""
    config = tmp_path / "gateway.toml"
    aws = f'[aws]\nregion = "us-east-1"\nendpoint_url = "{platform.url}"\n'
    server = "workers = 2\nport = 0"
    config.write_text(aws + CONFIG.format(valkey=valkey, drain=3600, server=server, more=""))
    serve = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    process = Process(["setsid", *serve])
    try:
        async with AsyncExitStack() as stack:
            idle = await both(process, stack)
            clients = await busy(process, stack, 1)
            os.killpg(process.popen.pid, signal.SIGINT)
            for each in idle:
                await each.closed()
            await drained(clients)
        assert process.wait() == 0
    finally:
        process.stop()


async def test_no_orphans(start: Callable[..., Process]) -> None:
    process = start()
    workers = children(process.popen.pid)
    async with AsyncExitStack() as stack:
        clients = await busy(process, stack, 0.5)
        process.popen.kill()
        await drained(clients)
    await gone(workers)


async def test_files_are_read_again_by_all_and_one_that_is_no_good_stops_nobody(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    add(keys, "ada", None)
    good = keys.read_bytes()
    process = start(more=f'[auth.keys]\nfile = "{keys}"')
    process.popen.send_signal(signal.SIGHUP)
    await process.says("files reloaded", 2)
    keys.write_text("nothing of the kind")
    workers = children(process.popen.pid)
    os.kill(workers[0], signal.SIGKILL)
    await process.says("a worker can't start")
    assert str(keys) in process.output.partition("a worker can't start")[2]
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        assert (await http.get(f"{process.url}/readyz")).status_code == 200
    keys.write_bytes(good)
    assert workers[1] in await replaced(process, workers)
    assert process.stop() == 0


def serve(config: Path) -> tuple[int, str]:
    """Run a gateway that can't; its exit code, and what it says."""
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * UNIT, check=False)
    return done.returncode, done.stdout + done.stderr


def test_one_that_cant_start_says_why_once(valkey: LocalValkey, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    tls = f'[tls]\ncert_file = "{tmp_path}/no.pem"\nkey_file = "{tmp_path}/no.pem"'
    config.write_text(CONFIG.format(valkey=valkey, drain=1, server="workers = 3", more=tls))
    code, output = serve(config)
    assert code == 2, output
    assert output.count("no.pem") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,)])
def test_the_port_is_another_programs(
    valkey: LocalValkey, tmp_path: Path, options: tuple[int, ...]
) -> None:
    config = tmp_path / "gateway.toml"
    with socket.socket() as other:
        for option in options:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = f"workers = 2\nport = {other.getsockname()[1]}"
        config.write_text(CONFIG.format(valkey=valkey, drain=1, server=server, more=""))
        code, output = serve(config)
    assert code == 1, output
    assert output.count("Address already in use. Stop what listens there") == 1
    assert "Traceback" not in output


def test_without_a_store_they_would_share_nothing(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[server]\nworkers = 2\n[routes.chat]\nendpoint_name = "e"\n')
    for arguments in (["serve"], ["check"]):
        done = CliRunner().invoke(main, [*arguments, "--config", str(config)])
        assert done.exit_code == 2
        assert f"{config}:2: server.workers: more than one needs [store] kind" in done.output
    config.write_text('[routes.chat]\nendpoint_name = "e"\n')
    done = CliRunner().invoke(main, ["serve", "--config", str(config), "--workers", "2"])
    assert done.exit_code == 2
    assert "--workers: server.workers: more than one needs [store] kind" in done.output
