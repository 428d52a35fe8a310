"""The README's container, from its own text: the code, the configuration and the commands."""

import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.client import client
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().partition("\n## A stateful container")[2]
SECTION = SECTION.partition("\n## ")[0]
CONTAINERS = (ROOT / "docs" / "containers.md").read_text()


def block(document: str, kind: str) -> str:
    """The one block of that kind in it."""
    (text,) = re.findall(rf"^```{kind}\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    return str(text)


CODE = block(SECTION, "python")
CONFIG = block(SECTION, "toml")
_INSTALL, CONTAINER, PLATFORM, GATEWAY, CHAT = block(SECTION, "sh").splitlines()


class House:
    """What the README says to start, with other ports.

    Args:
        folder: To start it in.
        stack: What was started last is stopped first.
        code: Of the container.
        config: Of the gateway.
    """

    def __init__(
        self, folder: Path, stack: ExitStack, *, code: str = CODE, config: str = CONFIG
    ) -> None:
        self._folder = folder
        self._stack = stack
        (folder / "container.py").write_text(code)
        self.container = self._start(CONTAINER.replace("--port 8081", "--port 0"))
        platform = PLATFORM.replace("http://127.0.0.1:8081", self.container.url)
        self.platform = self._start(f"{platform} --port 0")
        config = config.replace("http://127.0.0.1:9000", self.platform.url)
        (folder / "gateway.toml").write_text(config)
        self.gateway = self._start(f"{GATEWAY} --port 0")

    def chat(self, text: str) -> str:
        """What the terminal chat answers to these lines."""
        command = shell(self._folder, CHAT.replace("ws://127.0.0.1:8080", self.gateway.websocket))
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=20 * UNIT, check=True
        )
        return done.stdout

    def _start(self, line: str) -> Process:
        process = Process(shell(self._folder, line), self._folder)
        self._stack.callback(process.stop)
        return process


def shell(folder: Path, line: str) -> list[str]:
    """That line in a shell that finds what is installed here, and keeps its sessions there."""
    programs = shlex.quote(str(Path(sys.executable).parent))
    sessions = shlex.quote(str(folder / "sessions"))
    settings = f"PATH={programs}:$PATH SAGEMAKER_SESSIONS_PATH={sessions}"
    return ["sh", "-c", f"{settings} exec env {line}"]


async def test_the_container_that_the_readme_shows(stack: ExitStack, tmp_path: Path) -> None:
    house = House(tmp_path, stack)
    shown = block(SECTION, "text").splitlines()
    asked = [line.removeprefix("you> ") for line in shown if line.startswith("you> ")]
    answers = [line for line in shown if not line.startswith("you> ")]
    assert house.chat("\n".join(asked)).splitlines() == answers
    (instance,) = admin(house.platform)["instances"]
    assert (instance["opened"], instance["closed"]) == (1, 1)
    assert not list((tmp_path / "sessions").iterdir()), "the close has reached it"
    async with client(house.gateway.websocket) as chat:
        await chat.open()
        assert (await chat.ask("Hello"))["text"] == answers[0].replace(asked[0], "Hello")
        (session,) = (tmp_path / "sessions").iterdir()
        async with httpx.AsyncClient(base_url=house.container.url, timeout=20 * UNIT) as http:
            assert (await http.get("/ping")).status_code == 200
            headers = {"X-Amzn-SageMaker-Session-Id": session.name}
            close = {"requestType": "CLOSE"}
            assert (await http.post("/invocations", json=close, headers=headers)).is_success
            alone = await http.post("/invocations", json={"text": "hi"})
            assert (alone.status_code, "session not found" in alone.text) == (400, True)
        assert (await chat.ask("Are you there?"))["error"]["code"] == "session_lost"


async def test_it_streams_with_the_lines_of_the_document(stack: ExitStack, tmp_path: Path) -> None:
    section = CONTAINERS.partition("\n## Streaming")[2].partition("\n## ")[0]
    (last,) = (line for line in CODE.splitlines(keepends=True) if line.startswith("    return {"))
    code = CODE.replace(last, block(section, "python")).replace(
        "-> dict[str, str]:", "-> Response:"
    )
    imports = "import json\nfrom fastapi import Response\n"
    imports += "from fastapi.responses import StreamingResponse\n"
    config = CONFIG.partition("[routes.chat]")[0] + block(section, "toml")
    house = House(tmp_path, stack, code=imports + code, config=config)
    async with client(house.gateway.websocket) as chat:
        await chat.open()
        done = await chat.ask("Hello")
        assert (done["status"], done["deltas"]) == ("completed", 9)
        texts = [m["text"] for m in chat.messages if m["type"] == "message.delta"]
        assert "".join(texts).strip() == "Message 1 of this session. The first was: Hello"


BOOTSTRAP = "sagemaker.bootstrap(app)"
HANDLER = """
@sagemaker.custom_invocation_handler
@sagemaker.stateful_session_manager()
async def mine(request: Request) -> dict[str, str]:
    return {"text": "mine"}


sagemaker.bootstrap(app)"""
REPLACED = CODE.replace(BOOTSTRAP, HANDLER)
INCLUDED = (
    REPLACED.replace("@app.", "@router.")
    .replace("import FastAPI", "import APIRouter, FastAPI")
    .replace("app = FastAPI()", "app = FastAPI()\nrouter = APIRouter()")
    .replace(BOOTSTRAP, f"app.include_router(router)\n{BOOTSTRAP}")
)
REGISTERED = CODE.replace('@app.get("/ping")', "@sagemaker.register_ping_handler").replace(
    '@app.post("/invocations")', "@sagemaker.register_invocation_handler"
)
UPSIDE_DOWN = re.sub(r"(@app.post.*\n)(@sagemaker.*\n)", r"\2\1", CODE)
PARAMETERS = CODE.replace("(request: Request)", "(request: Request, text: str)")


@pytest.mark.parametrize(
    ("code", "opened", "said"),
    [
        pytest.param(REPLACED, 200, 200, id="replaced"),
        pytest.param(INCLUDED, 200, 400, id="not replaced in an included router"),
        pytest.param(REGISTERED, 404, 404, id="registered alone"),
        pytest.param(UPSIDE_DOWN, 400, 400, id="decorators upside down"),
        pytest.param(PARAMETERS, 200, 500, id="further parameters"),
    ],
)
def test_what_the_document_says_of_the_package(
    tmp_path: Path, stack: ExitStack, code: str, opened: int, said: int
) -> None:
    """The statuses of an opening, and of a message without a session, which the README's own
    handler answers with 400.
    """
    (tmp_path / "container.py").write_text(code)
    process = Process(shell(tmp_path, CONTAINER.replace("--port 8081", "--port 0")), tmp_path)
    stack.callback(process.stop)
    with httpx.Client(base_url=process.url, timeout=20 * UNIT) as http:
        new = {"requestType": "NEW_SESSION"}
        assert http.post("/invocations", json=new).status_code == opened
        assert http.post("/invocations", json={"text": "hi"}).status_code == said
