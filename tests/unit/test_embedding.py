"""The gateway as an ASGI application: when it starts and ends, and what `gateway` exports."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway
from gateway import ConfigError, Settings
from gateway.embedding import Gateway
from gateway.sagemaker.checks import platform_problems
from gateway.sessions import Sessions

FILE = """
[aws]
region = "us-east-1"
endpoint_url = "http://127.0.0.1:9"

[routes.chat]
endpoint_name = "my-endpoint"
"""


@pytest.fixture
def app() -> Gateway:
    aws = {"region": "us-east-1", "endpoint_url": "http://127.0.0.1:9"}
    return create(aws)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each start of a gateway, which looks for problems of its platform then."""
    calls: list[object] = []

    async def looked(**aws: Any) -> list[Any]:
        calls.append(aws)
        return await platform_problems(**aws)

    monkeypatch.setattr("gateway.app.platform_problems", looked)
    return calls


def create(aws: dict[str, str]) -> Gateway:
    routes = {"chat": {"endpoint_name": "my-endpoint"}}
    # Not by `create_app`, which sets the log of this process up.
    return Gateway(Settings.model_validate({"aws": aws, "routes": routes}))


async def get(app: Gateway, path: str = "/readyz") -> str:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.get(path)).text


async def others() -> set[asyncio.Task[Any]]:
    """What runs beside the test."""
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_it_runs_for_as_long_as_its_lifespan(app: Gateway, starts: list[object]) -> None:
    async with app.lifespan():
        assert await get(app) == "ok\n"
        async with app.lifespan("an application"):  # as where both the server and it pass one on
            pass
        assert await get(app) == "ok\n"
        assert len(starts) == 1
    assert await others() == set()
    async with app.lifespan():
        assert await get(app) == "ok\n"
        await asyncio.sleep(0)
        assert len(starts) == 2
    assert await others() == set()


async def test_a_lifespan_that_begins_while_another_ends(
    app: Gateway, starts: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    drains, drained = asyncio.Event(), asyncio.Event()
    drain = Sessions.drain

    async def slowly(sessions: Sessions) -> None:
        draining = asyncio.create_task(drain(sessions))
        await asyncio.sleep(0)
        drains.set()
        await drained.wait()
        await draining

    monkeypatch.setattr(Sessions, "drain", slowly)

    async def run_once() -> None:
        async with app.lifespan():
            pass

    first = asyncio.create_task(run_once())
    await drains.wait()
    assert await get(app) == "draining\n"
    async with app.lifespan():
        assert await get(app) == "ok\n"
        drained.set()
        await first
        assert await get(app) == "ok\n"
        assert len(starts) == 2
    assert await others() == set()


async def test_without_a_lifespan_it_starts_once_with_the_first_requests(
    app: Gateway, starts: list[object]
) -> None:
    assert await asyncio.gather(*[get(app) for _ in range(5)]) == ["ok\n"] * 5
    assert len(starts) == 1
    async with app.lifespan():  # late, and still it is its end
        assert await get(app) == "ok\n"
    assert len(starts) == 1
    assert await others() == set()


async def test_a_request_that_is_cancelled_does_not_end_what_it_has_started(app: Gateway) -> None:
    async with app.lifespan():
        pass
    first = asyncio.create_task(get(app))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await get(app) == "ok\n"
    async with app.lifespan():
        pass


def test_each_event_loop_has_its_own(app: Gateway, starts: list[object]) -> None:
    for _ in range(2):
        assert asyncio.run(get(app)) == "ok\n"
    assert len(starts) == 2


async def test_a_server_is_told_how_the_lifespan_goes(app: Gateway) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    call = asyncio.create_task(app({"type": "lifespan"}, received.get, send))
    received.put_nowait({"type": "lifespan.startup"})
    while not sent:  # noqa: ASYNC110 - a server, which has nothing to wait for either
        await asyncio.sleep(0)
    assert await get(app) == "ok\n"
    received.put_nowait({"type": "lifespan.shutdown"})
    await call
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_settings_that_the_platform_can_not_be_called_with() -> None:
    app = create({"region": "us-east-1", "profile": "no-such-profile"})
    with pytest.raises(ConfigError, match=r"aws\.profile: there is no profile with this name"):
        async with app.lifespan():
            pytest.fail("it has started")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"aws\.profile: there is no profile with this name"):
            await get(app)
    assert await others() == set()


def test_settings_are_loaded_as_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(FILE)
    assert Settings.load(file).aws.region == "us-east-1"
    monkeypatch.setenv("GATEWAY_AWS__REGION", "eu-west-1")
    assert Settings.load(str(file)).aws.region == "eu-west-1"
    with pytest.raises(ConfigError, match="routes: missing"):
        Settings.load()
    monkeypatch.setenv("GATEWAY_ROUTES__CHAT__ENDPOINT_NAME", "my-endpoint")
    assert list(Settings.load().routes) == ["chat"]
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file"):
        Settings.load(tmp_path / "nothing.toml")


def test_a_name_that_there_is_not() -> None:
    assert {name for name in gateway.__all__ if not hasattr(gateway, name)} == set()
    with pytest.raises(AttributeError, match="'gateway' has no attribute 'nothing'"):
        _ = gateway.nothing  # type: ignore[attr-defined]


def run(script: str) -> str:
    """What a Python process of its own writes."""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def test_the_client_loads_nothing_of_the_server() -> None:
    run(
        "import sys, gateway.client\n"
        "heavy = {'aiobotocore', 'botocore', 'pydantic', 'starlette', 'structlog', 'uvicorn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )


LOG = """
import logging, structlog
from gateway import Settings, create_app
logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
{configure}
settings = Settings.model_validate({{"routes": {{"chat": {{"endpoint_name": "my-endpoint"}}}}}})
create_app(settings)
log = structlog.stdlib.get_logger("gateway.test")
log.debug("too little")
log.info("opened", route="chat", share="100%", client="a b")
try:
    raise ValueError("it broke")
except ValueError:
    log.exception("failed")
"""


def test_its_log_is_that_of_the_application() -> None:
    first, second, *traceback = run(LOG.format(configure="")).splitlines()
    assert first == "INFO gateway.test: opened client='a b' route='chat' share='100%'"
    assert second == "ERROR gateway.test: failed"
    assert traceback[-1] == "ValueError: it broke"


def test_its_log_is_the_applications_structlog_where_that_is_set_up() -> None:
    configure = (
        "structlog.configure(processors=[structlog.processors.JSONRenderer(sort_keys=True)],"
        " logger_factory=structlog.stdlib.LoggerFactory())"
    )
    lines = run(LOG.format(configure=configure)).splitlines()
    assert 'INFO gateway.test: {"client": "a b", "event": "opened"' in lines[0]
