"""``session-gateway check --live``: what it finds where it works, and where not."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from gateway.cli import main
from gateway.config import AwsSettings, RouteSettings, Settings
from gateway.live.findings import Step, Trial
from gateway.live.recall import QUESTION, Memory, has_name, judged, new_name, statement
from gateway.live.report import NOTICE, Report
from gateway.live.routes import Audience, Nobody, trials
from gateway.live.speaker import Given
from gateway.local.asynchronous import Asynchronous
from gateway.local.builtin import BuiltinModel
from gateway.local.faults import Fault
from gateway.local.objects import Bucket
from gateway.local.platform import Endpoint
from gateway.local.server import running
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

DOCUMENT = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
TURN: dict[str, Any] = {"request": {"text": "$text"}, "text": "text"}


class Platform:
    """Endpoints of several kinds, and a gateway's settings for them."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        later = Asynchronous(self.bucket, outputs="s3://local/outputs")
        self.endpoints = {
            "stateful": Endpoint("stateful", [BuiltinModel("i-1")]),
            "forgets": Endpoint("forgets", [BuiltinModel("i-1", forgets=True)]),
            "stateless": Endpoint("stateless", [BuiltinModel("i-1", dialect="stateless")]),
            "torchserve": Endpoint("torchserve", [BuiltinModel("i-1", dialect="torchserve")]),
            "first": Endpoint("first", [BuiltinModel("i-1", dialect="first-message")]),
            "short": Endpoint("short", [BuiltinModel("i-1", session_seconds=4)]),
            "later": Endpoint("later", [BuiltinModel("i-1", forgets=True)], asynchronous=later),
        }
        self.url = ""

    async def tried(
        self,
        name: str,
        given: Given | None = None,
        seconds: float = 20 * UNIT,
        on_step: Callable[[Step], None] = lambda _step: None,
        audience: Audience | None = None,
        **route: Any,
    ) -> Trial:
        """What is found of a route to that endpoint."""
        settings = Settings(
            aws=AwsSettings(
                region="us-east-1", endpoint_url=self.url, s3_endpoint_url=f"{self.url}/_s3"
            ),
            routes={"chat": RouteSettings(endpoint_name=name, **route)},
        )

        class Listening(Nobody):
            def step(self, step: Step) -> None:
                on_step(step)

        told = audience or Listening()
        (trial,) = await trials(settings, ["chat"], given=given, seconds=seconds, audience=told)
        return trial

    def open_sessions(self, name: str) -> int:
        """How many nobody has closed."""
        return sum(self.endpoints[name].sessions.values())


@asynccontextmanager
async def serving() -> AsyncIterator[Platform]:
    platform = Platform()
    endpoints = list(platform.endpoints.values())
    async with running(endpoints, bucket=platform.bucket) as platform.url:
        yield platform


def found(trial: Trial) -> dict[str, str]:
    """How each step went, with its symptom where it has one."""
    return {step.name: step.symptom or step.status for step in trial.steps}


FINE = {"session": "ok", "message": "ok", "stream": "ok", "again": "ok", "memory": "ok"}


async def test_endpoints_of_all_kinds() -> None:
    async with serving() as platform:
        trial = await platform.tried("stateful", format="plain")
        assert trial.ok
        assert found(trial) == FINE | {"close": "ok"}
        assert "knew it" in {step.name: step.text for step in trial.steps}["memory"]
        assert found(await platform.tried("forgets", format="openai-chat")) == FINE | {
            "close": "ok"
        }
        trial = await platform.tried("forgets", format="openai-chat", history="model")
        assert not trial.ok
        assert found(trial) == FINE | {"memory": "forgets", "close": "ok"}
        route = {**TURN, "stream": "lines", "session": "torchserve"}
        route["request"] = {"text": "$text", "stream": "$stream"}
        assert found(await platform.tried("torchserve", **route)) == FINE | {"close": "ok"}
        trial = await platform.tried("first", session="first-message", format="plain")
        assert found(trial) == FINE | {"close": "ok"}
        assert [step.name for step in trial.steps][:4] == ["message", "session", "again", "stream"]
        for name in platform.endpoints:
            assert platform.open_sessions(name) == 0, name


async def test_the_documents_example_is_what_is_printed() -> None:
    file = io.StringIO()
    report = Report(Console(file=file, highlight=False, width=200), " in us-east-1")
    async with serving() as platform:
        await platform.tried("forgets", audience=report, format="openai-chat", history="model")
    pattern = r"AWS charges for them\.\n(.*?)session-gateway: check failed"
    (example,) = re.findall(pattern, DOCUMENT, re.DOTALL)
    printed = file.getvalue().replace("forgets", "my-endpoint", 1).splitlines()
    for shown, line in zip(example.splitlines(), printed, strict=True):
        beginning = re.escape(re.sub(r"\d+", "0", shown)).removesuffix("…")
        assert re.match(beginning, re.sub(r"\d+", "0", line)), line
    assert NOTICE in DOCUMENT


async def test_containers_without_sessions() -> None:
    async with serving() as platform:
        trial = await platform.tried("stateless", format="plain")
        assert (trial.ok, found(trial)) == (False, {"session": "opened_none"})
        trial = await platform.tried("stateless", session="first-message", format="plain")
        assert found(trial) == {"message": "ok", "session": "opened_none"}
        assert "opened no session" in trial.steps[-1].text
        trial = await platform.tried("stateful", session="torchserve", **TURN)
        assert found(trial) == {"session": "opened_none"}
        trial = await platform.tried("stateless", session="stateless", format="plain")
        assert (trial.ok, found(trial)["memory"]) == (True, "skipped")
        trial = await platform.tried("short", format="plain")
        assert (trial.ok, found(trial)["session"]) == (False, "short_session")


async def test_a_route_that_answers_later() -> None:
    async with serving() as platform:
        options: dict[str, Any] = {"mode": "async", "format": "openai-chat", "poll_seconds": 0.01}
        trial = await platform.tried("later", **options)
        assert found(trial) == {"message": "ok", "again": "ok", "memory": "ok"}
        platform.endpoints["later"].faults.add(Fault(delay_work_seconds=60 * UNIT, lists=False))
        platform.bucket.lists = False
        trial = await platform.tried("later", seconds=0.5 * UNIT, **options)
        assert found(trial) == {"message": "no_reply"}
        assert trial.steps[0].details == ("the gateway says: S3 denies access to replies",)


async def test_what_fails_in_the_middle() -> None:
    async with serving() as platform:
        endpoint = platform.endpoints["stateful"]

        def after(name: str, **fault: Any) -> Callable[[Step], None]:
            def add(step: Step) -> None:
                if step.name == name:
                    endpoint.faults.add(Fault(**fault))

            return add

        lost = after("stream", error="ModelError", status=400, message="session not found: a")
        trial = await platform.tried("stateful", on_step=lost, format="plain")
        assert found(trial) == {
            "session": "ok",
            "message": "ok",
            "stream": "ok",
            "again": "session_lost",
            "close": "ok",
        }
        assert trial.steps[3].details[0] == "the container says: session not found: a"
        broken = after("memory", error="ModelError", status=500, message="oh no")
        trial = await platform.tried("stateful", on_step=broken, format="plain")
        assert (trial.ok, found(trial)["close"]) == (True, "not_closed")
        assert "the container says: oh no" in trial.steps[-1].details
        slow = Given(text="/sleep 60")
        trial = await platform.tried("stateful", slow, 0.2 * UNIT, format="plain")
        assert found(trial) == {"session": "ok", "message": "too_slow", "close": "ok"}
        endpoint.faults.add(Fault(denies=frozenset({"InvokeEndpointWithResponseStream"})))
        trial = await platform.tried("stateful", format="plain")
        assert found(trial) == {"session": "ok", "message": "access_denied", "close": "ok"}
        assert "Allow sagemaker:InvokeEndpointWithResponseStream" in (trial.steps[1].hint or "")


async def test_formats_that_are_not_the_models() -> None:
    async with serving() as platform:
        trial = await platform.tried("stateful", request={"text": "$text"}, text="answer")
        assert not trial.ok
        assert [step.symptom for step in trial.steps[:3]] == [None, None, "other_format"]
        route = {**TURN, "stream": "lines"}
        assert found(await platform.tried("stateful", **route))["stream"] == "unknown", "short"
        trial = await platform.tried("stateful", Given(text="/count 100 0"), **route)
        assert (trial.ok, found(trial)["stream"]) == (True, "not_streamed")
        assert found(trial)["memory"] == "skipped"
        trial = await platform.tried("stateful", content_type="application/json")
        assert found(trial) == {"session": "ok", "message": "skipped", "close": "ok"}
        given = Given(text='{"text": "hi"}')
        trial = await platform.tried("stateful", given, content_type="application/json")
        assert (trial.ok, found(trial)["message"]) == (True, "ok")
        trial = await platform.tried("stateful", Given(data=b"\x00" * 5), content_type="audio/wav")
        assert "5 bytes of audio/wav" in trial.steps[1].text


@pytest.mark.parametrize(
    ("first", "answer", "afresh", "verdict"),
    [
        ("I will.", "I do not know.", "I do not know.", Memory.FORGETS),
        ("I will.", "I do not know!", "I do not know.", Memory.FORGETS),
        ("I will.", "Perhaps Tom?", "I have never met your cat.", Memory.UNKNOWN),
        ("ok", "ok", "ok", Memory.UNKNOWN),
        ("I will.", f"{QUESTION} {QUESTION}", f"{QUESTION} {QUESTION}", Memory.UNKNOWN),
        ("I will.", " ", " ", Memory.UNKNOWN),
        ("I will.", "I do not know.", "", Memory.UNKNOWN),
    ],
)
def test_what_an_answer_means(first: str, answer: str, afresh: str, verdict: Memory) -> None:
    assert judged(first, answer, afresh) is verdict


def test_a_name_is_found_however_it_is_written() -> None:
    name = new_name()
    assert name != new_name()
    assert has_name(name, f"Your cat is called {name.upper()}!")
    assert name in statement(name)
    assert not has_name(name, "I do not know.")


CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"
[routes.chat]
endpoint_name = "my-endpoint"
format = "plain"
[routes.data]
endpoint_name = "my-endpoint"
content_type = "application/json"
[routes.missing]
endpoint_name = "none-such"
"""


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def test_the_command(
    shared_platform: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(CONFIG.format(url=shared_platform.url))
    result = check("--live", "--route", "chat")
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(
        "Invoking the models: each route gets a session and a few short messages.\n"
    )
    lines = result.stdout.splitlines()
    url = shared_platform.url
    assert lines[4] == f"route chat: endpoint my-endpoint in us-east-1, at {url}"
    assert lines[5].startswith("  ok       session   opened; it expires in 20 min (")
    assert lines[-1] == "ok"
    result = check("--live")
    assert result.exit_code == 1
    assert "hint: There is no endpoint with this name in this region" in result.stdout
    assert result.stderr.endswith("session-gateway: check failed on route missing\n")
    result = check("--live", "--json", "--route", "data", "--message", '{"text": "hi"}')
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["ok"], told["findings"][0]["certain"]) == (True, False)
    (trial,) = told["live"]
    assert (trial["route"], trial["endpoint"], trial["ok"]) == ("data", "my-endpoint", True)
    assert trial["steps"][1]["status"] == "ok"
    assert json.loads(check("--json").stdout)["live"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--message", "hi"], "--message needs --live."),
        (["--route", "chat"], "--route needs --live."),
        (["--live", "--offline"], "--offline can't be combined with --live."),
        (["--live", "--route", "x"], "--route: there is no route x; the routes are chat, "),
        (["--live", "--message", "{"], "--message: route data takes only JSON, and "),
        (["--live", "--message", "@none"], "--message: No such file or directory: none"),
    ],
)
def test_options_that_can_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(CONFIG.format(url="http://127.0.0.1:1"))
    result = check(*arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_ctrl_c_closes_the_session(
    shared_platform: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(CONFIG.format(url=shared_platform.url))
    before = [instance["closed"] for instance in admin(shared_platform)["instances"]]
    asked = ["check", "--live", "--route", "chat", "--message", "/sleep 600"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "gateway", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "opened; it expires" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20 * UNIT)
    after = [instance["closed"] for instance in admin(shared_platform)["instances"]]
    assert process.returncode == 130, err
    assert sum(after) == sum(before) + 1
    assert "  ok       close     confirmed by the container" in out
    assert "Traceback" not in err
