"""What is compared, and how each is started."""

import os
from pathlib import Path

import msgspec

from tests.bench.processes import MEASURED, REST, Process

TRANSPORTS = ("aiobotocore", "lean")
"""The gateway's ways to the platform, by the setting ``aws.transport``."""

ENDPOINTS = ("reply-1024", "reply-1000000", "reply-5000000", "burst-200-40")

_CONFIG = """\
[server]
max_connections = 50000
log_level = "WARNING"
[store]
max_sessions = 50000
[aws]
region = "us-east-1"
endpoint_url = "{url}"
transport = "{transport}"
"""
_ROUTE = """\
[routes.{endpoint}]
endpoint_name = "{endpoint}"
content_type = "text/plain"
stream = "{stream}"
"""


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One way to a model.

    Attributes:
        name: In results and tables.
        way: How clients speak to it, see ``load.py``; None where it is its own client.
        kind: How it is started, see `started`.
        transport: The gateway's way to the platform, `aws.transport`; None where it is no gateway.
    """

    name: str
    kind: str
    way: str | None = None
    transport: str | None = None


PLAIN = Contender(name="plain aiobotocore call", kind="plain")
DIRECT = Contender(name="the platform, called raw", kind="direct", way="http")
FLOOR = Contender(name="floor: picows and a raw call", kind="floor", way="raw")
FORTY = Contender(name="forty lines of Starlette", kind="forty", way="raw")
STOCK = Contender(name="gateway, json, stock uvicorn", kind="stock", way="json", transport="lean")
LITELLM = Contender(name="LiteLLM's proxy", kind="litellm", way="chat")
LITELLM_PYTHON = os.environ.get("LITELLM_PYTHON")
"""The interpreter of a virtual environment that LiteLLM's proxy is installed in.

It can be no extra of this project: it wants other versions of what the gateway needs.
"""


def gateways(*ways: str) -> list[Contender]:
    """This gateway, with each of its transports."""
    return [
        Contender(
            name=f"gateway, {way}, {transport}",
            kind="gateway",
            way=way,
            transport=transport,
        )
        for transport in TRANSPORTS
        for way in ways
    ]


def own(way: str) -> Contender:
    """This gateway without any platform: what its own path costs."""
    return Contender(name=f"gateway, {way}, no platform", kind="own", way=way, transport="lean")


def left_out() -> list[str]:
    """What is not compared, and why."""
    if LITELLM_PYTHON:
        return []
    return [f"{LITELLM.name}: LITELLM_PYTHON does not say where it is installed"]


class Started(msgspec.Struct, frozen=True):
    """A contender that runs.

    Attributes:
        process: What is measured.
        load: What drives it; may be the same.
    """

    process: Process
    load: Process

    def stop(self) -> None:
        """End both."""
        for process in (self.load, self.process):
            process.__exit__()


def started(contender: Contender, *, upstream: str, endpoint: str, directory: Path) -> Started:
    """Start a contender and what drives it.

    Args:
        contender: Which one.
        upstream: The platform's address.
        endpoint: What it is to call.
        directory: For files.
    """
    invocations = f"{upstream}/endpoints/{endpoint}/invocations"
    log, load_log = directory / "contender.log", directory / "load.log"
    way = contender.way
    scheme, path = "ws", "/"
    match contender.kind:
        case "plain":
            plain = Process(["tests.bench.plain", upstream, endpoint], cores=MEASURED, log=log)
            return Started(plain, plain)
        case "direct":
            direct = Process(["tests.bench.load", "http", invocations], cores=MEASURED, log=log)
            return Started(direct, direct)
        case "floor":
            process = Process(["tests.bench.floor", invocations], cores=MEASURED, log=log)
        case "forty":
            environment = {"UPSTREAM": upstream, "ENDPOINT": endpoint}
            process = Process(
                ["tests.bench.forty"], cores=MEASURED, log=log, environment=environment
            )
            path = "/ws"
        case "litellm":
            assert LITELLM_PYTHON
            chat = invocations.replace("reply", "chat")
            command = ["tests.bench.litellm_proxy", chat]
            process = Process(command, cores=MEASURED, log=log, python=LITELLM_PYTHON)
            scheme, path = "http", "/v1/chat/completions"
        case kind:
            config = directory / "gateway.toml"
            assert contender.transport
            config.write_text(_config(upstream, contender.transport))
            module = "gateway" if kind == "gateway" else "tests.bench.own"
            command = [module, "serve", "--config", str(config), "--port", "0"]
            if kind == "stock":
                command = ["tests.bench.stock", str(config)]
            process = Process(command, cores=MEASURED, log=log)
            path = f"/ws/{endpoint}"
    try:
        url = process.url().replace("http", scheme, 1) + path
    except BaseException:
        process.__exit__()
        raise
    assert way is not None
    return Started(process, Process(["tests.bench.load", way, url], cores=REST, log=load_log))


def _config(url: str, transport: str) -> str:
    routes = [
        _ROUTE.format(endpoint=name, stream="raw" if name.startswith("burst") else "off")
        for name in ENDPOINTS
    ]
    return _CONFIG.format(url=url, transport=transport) + "".join(routes)
