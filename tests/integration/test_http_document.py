"""docs/http.md: what it shows is what comes of it."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from gateway.transports.drafts import OPTION_HEADERS, REPLY_HEADERS
from gateway.transports.problems import STATUS
from tests.integration.conftest import Start

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
CONFIG = """
[routes.chat]
endpoint_name = "my-endpoint"
"""


async def test_the_example_in_python(
    start_local: Start, start_gateway: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    platform = start_local()
    gateway = start_gateway(platform.url, CONFIG)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert "http://127.0.0.1:8080" in code
    code = code.replace("http://127.0.0.1:8080", gateway.url)
    await asyncio.to_thread(exec, code, {})
    first, second = capsys.readouterr().out.splitlines()
    assert "I will remember your name." in first
    assert "Your name is Ada." in second


NODE = str(Path(sys.executable).with_name("node"))


@pytest.mark.parametrize(
    ("kind", "command"),
    [("sh", ("bash", "-euo", "pipefail")), ("js", (NODE, "--input-type=module"))],
)
async def test_the_examples_of_other_languages(
    start_local: Start, start_gateway: Start, kind: str, command: tuple[str, ...]
) -> None:
    platform = start_local()
    gateway = start_gateway(platform.url, CONFIG + 'stream = "raw"\n')
    code, *_ = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    assert "http://127.0.0.1:8080" in code
    code = code.replace("http://127.0.0.1:8080", gateway.url)
    program = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await program.communicate(code.encode())
    assert program.returncode == 0
    assert "I will remember your name." in said.decode().replace("\n", "")


def test_every_code_has_its_status() -> None:
    table = re.findall(r"^\| (\d{3}) \| (.*) \|$", TEXT, re.MULTILINE)
    told = {
        code: int(status) for status, codes in table for code in re.findall("`([a-z_]+)`", codes)
    }
    assert told == {code.value: status for code, status in STATUS.items()} | {
        "duplicate": 409,
        "cancelled": 409,
    }


@pytest.mark.parametrize("header", [*OPTION_HEADERS, *REPLY_HEADERS])
def test_every_header_is_there(header: str) -> None:
    assert f"`{header}`" in TEXT
