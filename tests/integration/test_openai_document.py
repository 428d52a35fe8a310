"""docs/openai.md: what it shows is what comes of it."""

import asyncio
import re
from pathlib import Path

import pytest

import gateway
from gateway.transports.openai.errors import _CODES, MAY_HAVE_RUN
from tests.integration.conftest import Start

TEXT = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
CONFIG = '[routes.chat]\nendpoint_name = "my-endpoint"\nformat = "openai-chat"\n'


EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.filterwarnings(
    # The client does not yet connect as newer versions of websockets want it.
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)
async def test_the_examples_in_python(
    start_local: Start, start_gateway: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    platform = start_local("--forgets")
    process = start_gateway(platform.url, CONFIG)
    assert len(EXAMPLES) == 3
    for code in EXAMPLES:
        assert "http://127.0.0.1:8080" in code
        await asyncio.to_thread(exec, code.replace("http://127.0.0.1:8080", process.url), {})
        assert "Ada" in capsys.readouterr().out


def test_every_code_has_its_status() -> None:
    table = re.findall(r"^\| (\d{3}) \| (.*) \|$", TEXT, re.MULTILINE)
    told = {int(status): {*re.findall("`([a-z_]+)`", codes)} for status, codes in table}
    assert str(MAY_HAVE_RUN) in TEXT
    for kind in _CODES.values():
        assert kind.code in told[kind.status], kind
    codes = {
        code
        for module in (Path(gateway.__file__ or "").parent / "transports" / "openai").glob("*.py")
        for code in re.findall(r"\bcode=\"([a-z_]+)\"", module.read_text())
    }
    assert codes - {"server_error"} <= set().union(*told.values())
