"""The tutorial, from its own text: the code, the configurations and the commands."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.documents.blocks import Document
from tests.support.client import client
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

TUTORIAL = Document("docs/tutorial.md")
CONTAINERS = Document("docs/containers.md")

(CODE,) = TUTORIAL.blocks("python", "The container")
CONTAINER, OPENING = (text.strip() for text in TUTORIAL.blocks("sh", "The container"))
PLATFORM = TUTORIAL.block("sh", "A local SageMaker").strip()
CONFIG = TUTORIAL.block("toml", "The gateway")
KEYS, CHECK, GATEWAY = TUTORIAL.block("sh", "The gateway").splitlines()
CHAT, ASK = (text.strip() for text in TUTORIAL.blocks("sh", "Chat"))
SECOND, BOTH, STATE, LOSE = (text.strip() for text in TUTORIAL.blocks("sh", "Lose an instance"))


class House:
    """What the tutorial says to start, with other ports.

    Args:
        folder: To start it in.
        stack: What was started last is stopped first.
        code: Of the container.
        config: Of the gateway.
    """

    def __init__(
        self, folder: Path, stack: ExitStack, *, code: str = CODE, config: str = CONFIG
    ) -> None:
        self.folder = folder
        self._stack = stack
        (folder / "container.py").write_text(code)
        self.container = self.start(CONTAINER.replace("--port 8081", "--port 0"))
        platform = PLATFORM.replace("http://127.0.0.1:8081", self.container.url)
        self.platform = self.start(f"{platform} --port 0")
        self.gateway = self.serve(config)

    def serve(self, config: str) -> Process:
        """The gateway with that configuration, once `check` has found nothing wrong with it."""
        config = config.replace("http://127.0.0.1:9000", self.platform.url)
        (self.folder / "gateway.toml").write_text(config)
        assert self.run(CHECK).stdout == TUTORIAL.block("text", "The gateway")
        return self.start(f"{GATEWAY} --port 0")

    def run(self, line: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """What a command says."""
        return subprocess.run(
            shell(self.folder, line),
            input=text,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=20 * UNIT,
            check=True,
        )

    def start(self, line: str) -> Process:
        """Start a command that listens."""
        process = Process(shell(self.folder, line), self.folder)
        self._stack.callback(process.stop)
        return process

    def chat(self, text: str) -> str:
        """What the terminal chat answers to these lines."""
        return self.run(f"{CHAT} {self.gateway.url}", text).stdout


def shell(folder: Path, line: str) -> list[str]:
    """That line in a shell that finds what is installed here, and keeps its sessions there."""
    programs = shlex.quote(str(Path(sys.executable).parent))
    sessions = shlex.quote(str(folder / "sessions"))
    settings = f"PATH={programs}:$PATH SAGEMAKER_SESSIONS_PATH={sessions}"
    return ["sh", "-c", f"{KEYS}; {settings} exec env {line}"]


SHOWN = TUTORIAL.block("text", "Chat").splitlines()
ASKED = [line.removeprefix("you> ") for line in SHOWN if line.startswith("you> ")]
ANSWERS = [line for line in SHOWN if not line.startswith("you> ")]


async def test_from_nothing_to_the_loss_of_an_instance(stack: ExitStack, tmp_path: Path) -> None:
    house = House(tmp_path, stack)
    assert house.chat("\n".join(ASKED)).splitlines() == ANSWERS
    (instance,) = admin(house.platform)["instances"]
    assert (instance["opened"], instance["closed"]) == (1, 1)
    assert not list((tmp_path / "sessions").iterdir()), "the close has reached it"
    async with client(house.gateway.websocket) as chat:
        await chat.open()
        assert (await chat.ask("Hello"))["text"] == ANSWERS[0].replace(ASKED[0], "Hello")
        (session,) = (tmp_path / "sessions").iterdir()
        async with httpx.AsyncClient(base_url=house.container.url, timeout=20 * UNIT) as http:
            assert (await http.get("/ping")).status_code == 200
            headers = {"X-Amzn-SageMaker-Session-Id": session.name}
            close = {"requestType": "CLOSE"}
            assert (await http.post("/invocations", json=close, headers=headers)).is_success
            alone = await http.post("/invocations", json={"text": "hi"})
            assert (alone.status_code, "session not found" in alone.text) == (400, True)
        assert (await chat.ask("Are you there?"))["error"]["code"] == "session_lost"
    house.gateway.stop()
    opened = house.run(OPENING.replace("http://127.0.0.1:8081", house.container.url)).stdout
    (header,) = TUTORIAL.block("text", "The container").splitlines()
    assert re.search(
        re.sub("[0-9a-f]+-…", "[0-9a-f-]{36}", re.sub(r"\d{4}-.*", "", header)), opened
    )

    # A second instance, and the loss of the first.
    second = SECOND.replace("--port 8082", "--port 0").replace("/tmp/second", str(tmp_path / "2"))
    other = house.start(second)
    both = BOTH.replace("http://127.0.0.1:8081", house.container.url)
    house.platform = house.start(f"{both.replace('http://127.0.0.1:8082', other.url)} --port 0")
    replaying = TUTORIAL.block("toml", "Lose an instance")
    house.gateway = house.serve(replaying)
    script = (
        TUTORIAL.blocks("python", "Chat")[0]
        .replace("ws://127.0.0.1:8080", house.gateway.websocket)
        .replace("print(reply.text)", "print(reply.text, flush=True)")
    )
    (tmp_path / "ask.py").write_text(script)
    assert house.run(ASK).stdout.splitlines() == ANSWERS
    async with client(house.gateway.websocket) as chat:
        await chat.open()
        for asked, answer in zip(ASKED, ANSWERS, strict=True):
            assert (await chat.ask(asked))["text"] == answer
        state = json.loads(house.run(at(house, STATE)).stdout)
        (has_it,) = (each["name"] for each in state["instances"] if each["sessions"] == 1)
        house.run(at(house, LOSE).replace("/i-1/", f"/{has_it}/"))
        done = await chat.ask("And now?")
        assert done["text"] == TUTORIAL.block("text", "Lose an instance").strip()
        (renewed,) = (each for each in chat.messages if each["type"] == "session.renewed")
        assert (renewed["reason"], renewed["context"]) == ("lost", "replayed")


def at(house: House, line: str) -> str:
    """A command to the local SageMaker where it listens here."""
    return line.replace("http://127.0.0.1:9000", house.platform.url)


async def test_it_streams_with_the_lines_of_the_document(stack: ExitStack, tmp_path: Path) -> None:
    (last,) = (line for line in CODE.splitlines(keepends=True) if line.startswith("    return {"))
    code = CODE.replace(last, CONTAINERS.block("python", "Streaming")).replace(
        "-> dict[str, str]:", "-> Response:"
    )
    imports = "import json\nfrom fastapi import Response\n"
    imports += "from fastapi.responses import StreamingResponse\n"
    config = CONFIG.partition("[routes.chat]")[0] + CONTAINERS.block("toml", "Streaming")
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
    """The statuses of an opening, and of a message without a session, which the tutorial's
    own handler answers with 400.
    """
    (tmp_path / "container.py").write_text(code)
    process = Process(shell(tmp_path, CONTAINER.replace("--port 8081", "--port 0")), tmp_path)
    stack.callback(process.stop)
    with httpx.Client(base_url=process.url, timeout=20 * UNIT) as http:
        new = {"requestType": "NEW_SESSION"}
        assert http.post("/invocations", json=new).status_code == opened
        assert http.post("/invocations", json={"text": "hi"}).status_code == said
