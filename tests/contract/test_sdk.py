"""A gateway works without any of what the lean transport uses of the AWS SDK's inside."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import botocore.exceptions as boto
import pytest
from structlog.testing import capture_logs

from gateway.local.builtin import BuiltinModel
from gateway.local.platform import Endpoint
from gateway.local.server import running
from gateway.protocol.options import CallOptions
from gateway.sagemaker import lean, sdk
from gateway.sagemaker.aio import AioTransport
from gateway.sagemaker.lean import LeanTransport
from gateway.sagemaker.model import SageMakerModel
from gateway.sagemaker.profiles import PROFILES
from gateway.sagemaker.runtime import NotConfigured
from gateway.sagemaker.transport import Transport
from gateway.session.ports import ModelRequest
from tests.support import transports
from tests.support.calls import invoke
from tests.support.timing import UNIT

NAMES = [(module, name) for module, names in sdk.MODULES.items() for name in names]

# What is used of the client and its credentials.
ATTRIBUTES = [
    "client.meta.events.register_first",
    "client.meta.events.register_last",
    "client.meta.events.unregister",
    "client.meta.service_model.operation_model",
    "client.meta.service_model.resolved_protocol",
    "client.meta.service_model.shape_for_error_code",
    "client.exceptions.from_code",
    "client.invoke_endpoint",
    "client.invoke_endpoint_with_response_stream",
    "credentials.get_frozen_credentials",
]


@pytest.fixture(autouse=True)
def transport() -> None:
    """These tests are of the choice between both."""


class Without:
    """An object that lacks one attribute, of its own or further down."""

    def __init__(self, what: Any, path: list[str]) -> None:
        self._what = what
        self._path = path

    def __getattr__(self, name: str) -> Any:
        first, *rest = self._path
        if name != first:
            return getattr(self._what, name)
        if not rest:
            raise AttributeError(f"no attribute {name!r}", name=name, obj=self._what)
        return Without(getattr(self._what, name), rest)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with running([Endpoint("my-endpoint", [BuiltinModel("i-1")])]) as url:
        yield url


def runtime(url: str, transport: str = "auto") -> AbstractAsyncContextManager[Transport]:
    """A client that is patient."""
    patient = dict.fromkeys(("read_timeout", "call_timeout", "stream_timeout"), 20.0 * UNIT)
    return transports.client(url, transport=transport, **patient)


async def works_without(url: str, *says: str) -> None:
    """A conversation goes on through aiobotocore, and one line of the log says why."""
    with capture_logs() as logs:
        async with runtime(url) as client:
            assert isinstance(client, AioTransport)
            model = SageMakerModel(
                client, "my-endpoint", PROFILES["container-standards"], CallOptions()
            )
            session = await model.open("p")
            ask = ModelRequest(body=b'{"text": "hi"}', content_type="application/json")
            assert b'"turn":1' in ((await invoke(model, ask, session)).body or b"")
            await model.close(session)
    (line,) = logs
    assert line["event"] == "calls use aiobotocore"
    for text in says:
        assert text in line["why"]
    with pytest.raises(NotConfigured, match='transport = "lean" is not possible'):
        async with runtime(url, "lean"):
            pass


async def test_with_all_of_it_the_transport_is_lean(url: str) -> None:
    with capture_logs() as logs:
        async with runtime(url) as client:
            assert isinstance(client, LeanTransport)
    assert logs == []


@pytest.mark.parametrize(("module", "name"), NAMES)
async def test_without_a_name(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, name: str
) -> None:
    def seen(asked: str) -> Any:
        found = import_module(asked)
        return Without(found, [name]) if asked == module else found

    monkeypatch.setattr(sdk, "import_module", seen)
    await works_without(url, f"no {module}.{name}")


async def test_without_a_module(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    def seen(asked: str) -> Any:
        raise ModuleNotFoundError(name=asked)

    monkeypatch.setattr(sdk, "import_module", seen)
    await works_without(url)


@pytest.mark.parametrize(("module", "name"), NAMES)
async def test_a_name_for_something_else(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, name: str
) -> None:
    """Each is tried at the start, and not when the first error comes."""

    class Other:
        def __init__(self, *_: object, **__: object) -> None:
            raise RuntimeError("secret")

    def seen(asked: str) -> Any:
        found = import_module(asked)
        return SimpleNamespace(**{**vars(found), name: Other}) if asked == module else found

    monkeypatch.setattr(sdk, "import_module", seen)
    with capture_logs() as logs:
        async with runtime(url.replace("http://", "https://")) as client:  # TLS has some too
            assert isinstance(client, AioTransport)
    assert "secret" not in str(logs)


@pytest.mark.parametrize("path", ATTRIBUTES)
async def test_without_an_attribute(monkeypatch: pytest.MonkeyPatch, url: str, path: str) -> None:
    root, *rest = path.split(".")

    async def discover(client: Any, credentials: Any, options: Any) -> sdk.Sdk:
        if root == "client":
            client = Without(client, rest)
        else:
            credentials = Without(credentials, rest)
        return await sdk.discover(client, credentials, options)

    monkeypatch.setattr(lean, "discover", discover)
    await works_without(url, rest[-1])


async def test_credentials_without_a_way_to_ask_whether_they_are_stale(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Those that never are have none, so it is no piece that can be missing."""

    async def discover(client: Any, credentials: Any, options: Any) -> sdk.Sdk:
        return await sdk.discover(client, Without(credentials, ["refresh_needed"]), options)

    monkeypatch.setattr(lean, "discover", discover)
    async with runtime(url) as client:
        assert isinstance(client, LeanTransport)


IMPORT = """
import importlib, sys
import aiobotocore.session  # the SDK's own modules have what they need
pieces = [piece.rsplit(".", 1) for piece in sys.argv[1:]]
for module, name in pieces:
    found = importlib.import_module(module)
    kept = getattr(found, name)
    delattr(found, name)
    importlib.import_module("gateway.sagemaker")
    setattr(found, name, kept)
    for each in [each for each in sys.modules if each.startswith("gateway")]:
        del sys.modules[each]
print(len(pieces))
"""


def test_the_package_can_be_imported_without_any_of_them() -> None:
    exceptions = [
        f"botocore.exceptions.{name}"
        for name, kind in vars(boto).items()
        if isinstance(kind, type) and name not in {"BotoCoreError", "ClientError"}
    ]
    names = [f"{module}.{name}" for module, name in NAMES] + exceptions
    command = [sys.executable, "-c", IMPORT, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", f"{len(names)}\n")
