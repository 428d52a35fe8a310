"""/openapi.json is true: schemathesis makes requests of it, valid ones and others, and compares."""

import asyncio
import json
import re
import sys
from pathlib import Path

import httpx
import pytest

from gateway.security.keys import digest
from tests.integration.conftest import Start

KEY = "sgk_service"
CONFIG = """
[routes.chat]
endpoint_name = "my-endpoint"
on_lost = "replay"
idle_seconds = 1  # so that what a session says comes to an end
resume_seconds = 0.5
"""
AUTH = """
[limits]
messages_per_second = 1000
[auth.keys]
file = "{file}"
"""
EXAMPLES = 15
"""How many requests are made of each operation at random, beside those at the edges."""

RULES = """
[phases.stateful]
inference.algorithms = []  # else hardly any chain opens a session and goes on with it
[[operations]]
include-operation-id = "streamEvents"  # an event may be past the newest one
checks.positive_data_acceptance.expected-statuses = ["200", "404", "422", "429"]

[[operations]]
include-operation-id = "openSession"  # a conversation may end with what nobody has answered
checks.positive_data_acceptance.expected-statuses = ["201", "422", "429"]

[[operations]]
include-operation-id = "watch"  # it does not end
enabled = false
[[operations]]
include-operation-id = "drainReplica"  # it ends the gateway
enabled = false
"""

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


async def compare(url: str, folder: Path, *arguments: str) -> str:
    """Have schemathesis compare; returns its report."""
    rules = folder / "schemathesis.toml"
    rules.write_text(RULES)
    program = await asyncio.create_subprocess_exec(
        SCHEMATHESIS,
        f"--config-file={rules}",
        "run",
        f"{url}/openapi.json",
        f"--max-examples={EXAMPLES}",
        "--checks=all",
        # The last events of a session that is closed may still be read.
        "--exclude-checks=use_after_free",
        "--seed=1",
        "--generation-database=none",
        "--no-color",
        *arguments,
        cwd=folder,  # where it leaves what it has found
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await program.communicate()
    report = out.decode()
    assert program.returncode == 0, report
    return report


@pytest.mark.parametrize("with_keys", [pytest.param(False, marks=pytest.mark.long), True])
async def test_the_document_is_true(
    start_local: Start, start_gateway: Start, tmp_path: Path, *, with_keys: bool
) -> None:
    config, arguments, operations = CONFIG, list[str](), 10
    if with_keys:
        file = tmp_path / "keys.toml"
        file.write_text(f'[service]\nsha256 = "{digest(KEY)}"\noperator = true\n')
        config += AUTH.format(file=file)
        arguments, operations = ["-H", f"Authorization: Bearer {KEY}"], 11
    gateway = start_gateway(start_local().url, config)
    report = await compare(gateway.url, tmp_path, *arguments)
    assert f"Tested: {operations}" in report
    covered = re.search(r"API Links: +(\d+) covered", report)
    assert covered is not None
    assert int(covered[1]) > 0  # sessions were opened, and used


async def test_what_there_is_not_is_a_problem(start_local: Start, start_gateway: Start) -> None:
    gateway = start_gateway(start_local().url, CONFIG)
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        for path in ("/v1/nothing", "/v1/routes/a%0Ab/sessions"):
            response = await http.post(path)
            assert response.status_code == 404
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["code"] == "unknown_route"


async def test_it_says_where_the_api_is(start_local: Start, start_gateway: Start) -> None:
    gateway = start_gateway(start_local().url, CONFIG)
    async with httpx.AsyncClient() as http:
        response = await http.get(f"{gateway.url}/openapi.json", headers={"Origin": "https://a.b"})
    assert response.headers["access-control-allow-origin"] == "*"
    document = json.loads(response.content)
    assert document["openapi"].startswith("3.1.")
    assert document["servers"] == [{"url": "/"}]
    (route,) = document["paths"]["/v1/routes/{route}/sessions"]["post"]["parameters"]
    assert route["schema"] == {"enum": ["chat"]}
