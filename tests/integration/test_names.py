"""A page under a name that somebody has pointed at this machine is not given what it asks for."""

from pathlib import Path

import httpx
import pytest

from tests.support.processes import Process, gateway
from tests.support.timing import UNIT

CONFIG = """
[server]
{server}

[aws]
region = "us-east-1"
endpoint_url = "http://127.0.0.1:9"

[routes.chat]
endpoint_name = "my-endpoint"
allowed_origins = ["https://app.example.com"]
"""
PAGES = ("/", "/page.json", "/static/client.js", "/nowhere")
PUBLIC = 'public_url = "https://chat.example.com:8443/gw"'
TRUSTED = 'trusted_proxies = ["127.0.0.1"]'


def statuses(server: str, folder: Path, host: str) -> set[int]:
    file = folder / "gateway.toml"
    file.write_text(CONFIG.format(server=server))
    with gateway(file) as process, http(process) as client:
        assert client.get("/healthz", headers={"Host": "10.1.2.3:8080"}).status_code == 200
        assert client.get("/ws/chat", headers={"Host": "10.1.2.3:8080"}).status_code == 426
        host = host.replace("PORT", process.url.rpartition(":")[2])
        answers = [client.get(path, headers={"Host": host}) for path in PAGES]
        refused = [answer for answer in answers if answer.status_code == 421]
        assert all("set public_url in [server]" in answer.text for answer in refused)
        return {answer.status_code for answer in answers}


def http(process: Process) -> httpx.Client:
    return httpx.Client(base_url=process.url, verify=False, timeout=20 * UNIT)


@pytest.mark.parametrize(
    ("server", "host", "known"),
    [
        ("", "127.0.0.1:PORT", True),
        ("", "127.7.7.7", True),
        ("", "localhost:PORT", True),
        ("", "LOCALHOST:PORT", True),
        ("", "[::1]:1", True),
        ("", "evil.example.com:PORT", False),
        ("", "localhost.evil.example.com", False),
        ("", "10.0.0.1:PORT", False),
        ("", "user@[", False),
        ("", "app.example.com", True),
        ("", "chat.example.com:8443", False),
        (PUBLIC, "chat.example.com:8443", True),
        (PUBLIC, "chat.example.com", False),
        (f"{PUBLIC}\n{TRUSTED}", "evil.example.com", False),
        (TRUSTED, "chat.example.com", True),
    ],
)
def test_the_pages(server: str, host: str, known: bool, tmp_path: Path) -> None:
    assert statuses(server, tmp_path, host) == ({200, 404} if known else {421})
