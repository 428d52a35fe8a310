"""``deploy/monitoring``: a real Prometheus scrapes a gateway, and has what the dashboard asks."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.local.valkey import running
from gateway.telemetry.families import FAMILIES
from tests.packaging.deployed import DEPLOY
from tests.support.client import client
from tests.support.processes import Process, admin, gateway, local
from tests.support.timing import UNIT

MONITORING = DEPLOY / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = (MONITORING / "alerts.yaml").read_text()
PLACES = "/usr/sbin:/usr/bin:/usr/local/bin"

CONFIG = """
[aws]
region = "us-east-1"
endpoint_url = "{url}"
[metrics]
port = 0
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
stream = "raw"
on_lost = "renew"
retries = 0
"""

SCRAPED = """
global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: gateway
    static_configs: [{{ targets: ["{target}"] }}]
"""

EMPTY = {
    "Time that these have waited": "no turn had to wait",
    "Answers over HTTP": "nobody has asked over HTTP",
}
"""Panels that have nothing to show of what the test does, and why."""


def program(name: str) -> str:
    """Where it is: Debian has both in its package prometheus."""
    found = shutil.which(name, path=PLACES)
    assert found is not None, f"{name} is needed: apt-get install prometheus"
    return found


def test_the_rules_and_what_they_are_to_say() -> None:
    for command in ("check rules alerts.yaml", "test rules alerts.test.yaml"):
        done = subprocess.run(
            [program("promtool"), *command.split()],
            cwd=MONITORING,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_is_seen_to_fire() -> None:
    text = (MONITORING / "alerts.test.yaml").read_text()
    for rule in yaml.safe_load(RULES)["groups"][0]["rules"]:
        name = rule["alert"]
        fires = f'alertname="{name}", alertstate="firing"' in text
        assert fires or f"alertname: {name}\n        exp_alerts" in text, name
        assert {"summary", "description"} == rule["annotations"].keys()
        assert rule["labels"]["severity"] in {"critical", "warning"}


def expressions() -> Iterator[tuple[str, str]]:
    """The dashboard's, each with the panel that it is of."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def asked(expression: str) -> str:
    """With everything for its variables."""
    for name in ("job", "instance", "route"):
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "60s")


def known() -> set[str]:
    """Every name that a sample may have."""
    names = set()
    for family in FAMILIES:
        ends = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        names |= {family.full_name + end for end in ends}
    return names


def test_what_is_asked_for_is_what_there_is() -> None:
    rules = "".join(rule["expr"] for rule in yaml.safe_load(RULES)["groups"][0]["rules"])
    variables = "".join(each.get("definition", "") for each in DASHBOARD["templating"]["list"])
    shown = "".join(expression for _, expression in expressions()) + variables
    name = re.compile(r"\b(?:session_gateway|process)_\w+")
    assert {*name.findall(rules)} <= known()
    asked_for = {*name.findall(shown)}
    assert asked_for <= known()
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked_for}
    assert {family.full_name for family in FAMILIES} == families, "all of them are shown"


def test_panels_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[tuple[Process, Process, str]]:
    """A gateway, its platform, and the address of a Prometheus that scrapes it."""
    with ExitStack() as stack:
        valkey = stack.enter_context(running())
        platform = stack.enter_context(local())
        file = tmp_path / "gateway.toml"
        file.write_text(CONFIG.format(url=platform.url, valkey=valkey))
        process = stack.enter_context(gateway(file))
        (port,) = re.findall(r"metrics are served.*port=(\d+)", process.output)
        config = tmp_path / "prometheus.yml"
        rules = MONITORING / "alerts.yaml"
        config.write_text(SCRAPED.format(rules=rules, target=f"127.0.0.1:{port}"))
        command = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ]
        prometheus = stack.enter_context(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        )
        stack.callback(prometheus.kill)
        yield process, platform, listening(prometheus)


def listening(prometheus: subprocess.Popen[str]) -> str:
    """Where it listens: it says so, but not the port where that is 0, which the system knows."""
    assert prometheus.stderr is not None
    for line in prometheus.stderr:
        if "Server is ready" in line:
            break
    inodes = {
        link.readlink().name[8:-1]
        for link in Path(f"/proc/{prometheus.pid}/fd").iterdir()
        if link.readlink().name.startswith("socket:")
    }
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, address, _, state, *rest = line.split()
        if state == "0A" and rest[5] in inodes:
            return f"http://127.0.0.1:{int(address.partition(':')[2], 16)}"
    raise AssertionError("it does not listen")


async def evaluated(http: httpx.AsyncClient, expression: str) -> list[Any]:
    """What Prometheus makes of an expression."""
    response = await http.get("/api/v1/query", params={"query": expression})
    assert response.status_code == 200, (expression, response.text)
    found: list[Any] = response.json()["data"]["result"]
    return found


async def test_a_prometheus_has_an_answer_for_every_panel(
    scraped: tuple[Process, Process, str],
) -> None:
    process, platform, url = scraped
    async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT, verify=False) as http:
        for _, expression in expressions():
            await evaluated(http, asked(expression))  # which it understands
        missing = {title for title, _ in expressions()} - EMPTY.keys()
        async with asyncio.timeout(60 * UNIT), client(process.websocket) as chat:
            await chat.open()
            await chat.send("nonsense")
            (holder,) = [each for each in admin(platform)["instances"] if each["opened"]]
            admin(platform, f"/instances/{holder['name']}/lose")
            async with client(process.websocket) as gone:  # and may come back
                await gone.open()
            while missing:
                print("nothing yet for", sorted(missing))  # noqa: T201 - it is shown with a failure
                await chat.ask("hi there")
                await chat.ask("/fail 503")
                async with client(process.websocket) as other:
                    await other.open()
                    await other.ask("hi")
                    await other.send("session.close")
                    await other.closed()
                await asyncio.sleep(0.2)
                for title, expression in expressions():
                    if title in missing and await evaluated(http, asked(expression)):
                        missing.remove(title)
        rules = (await http.get("/api/v1/rules")).json()["data"]["groups"][0]["rules"]
        assert len(rules) == RULES.count("- alert:")
        assert all(rule["health"] == "ok" for rule in rules)
