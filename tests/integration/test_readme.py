"""README's first configuration, with the tools that README names, just as it says."""

import asyncio
import re
import sys
from pathlib import Path

from gateway.local.environment import apart_from_aws
from tests.client.test_chat import piped
from tests.support.client import in_time, raw
from tests.support.processes import Process, admin, gateway

README = (Path(__file__).parents[2] / "README.md").read_text()


async def test_the_first_configuration_holds_a_conversation(
    platform: Process, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0])
    await platform.says("session-gateway serve\n")  # the last of what to do
    exports = [line for line in platform.lines if line.startswith("  export ")]
    assert len(exports) == 2
    for line in exports:
        assert line.strip().replace(platform.url, "http://127.0.0.1:9000") in README
    settings = dict(pair.split("=", 1) for line in exports for pair in line.split()[1:])
    with apart_from_aws(**settings):
        checking = [sys.executable, "-m", "gateway", "check", "--config", str(file)]
        checked = await asyncio.create_subprocess_exec(*checking)
        assert await in_time(checked.wait()) == 0
        with gateway(file) as process:
            said = "My name is Ada.\nWhat is my name?\n"
            code, out, _ = await piped(f"{process.websocket}/ws", said)
            async with raw(process.websocket) as socket:
                await socket.send("What is my name?")
                assert "I know nothing about you yet." in str(await in_time(socket.recv()))
    assert code == 0
    assert "Hello Ada, I will remember your name." in out
    assert "Your name is Ada." in out
    assert sum(instance["opened"] for instance in admin(platform)["instances"]) == 2
