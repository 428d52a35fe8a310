"""Gateways and local SageMakers as processes, as many as a test wants.

Most of what a test takes is their start, so tests that need no fresh ones share them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import openai
import pytest

from gateway.local.valkey import LocalValkey, running
from tests.support.openaisdk import client
from tests.support.processes import Forgetful, Process, gateway, local
from tests.support.responding import Chat
from tests.support.secrets import register
from tests.support.timing import UNIT

Start = Callable[..., Process]

AWS = '[aws]\nregion = "us-east-1"\nendpoint_url = "{url}"\ntransport = "{transport}"\n'


@pytest.fixture(scope="module")
def shared_platform() -> Iterator[Process]:
    """A local SageMaker for tests that do not ask what has reached it."""
    with local() as process:
        yield process


@pytest.fixture(scope="module")
def url(
    request: pytest.FixtureRequest,
    shared_platform: Process,
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A gateway in front of the shared platform, with the module's ``ROUTES``."""
    file = tmp_path_factory.mktemp("gateway") / "gateway.toml"
    aws = AWS.format(url=shared_platform.url, transport=transport)
    file.write_text(aws + request.module.ROUTES)
    with gateway(file) as process:
        yield process.websocket


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What was started last is stopped first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start_local(stack: ExitStack) -> Start:
    """Start the local SageMaker."""
    return lambda *arguments: stack.enter_context(local(*arguments))


@pytest.fixture
def start_gateway(stack: ExitStack, tmp_path: Path, transport: str) -> Start:
    """Start a gateway with that configuration in front of that address."""

    def start(url: str, config: str, *arguments: str) -> Process:
        file = tmp_path / "gateway.toml"
        file.write_text(AWS.format(url=url, transport=transport) + config)
        return stack.enter_context(gateway(file, *arguments))

    return start


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Forgetful]]:
    """Two containers that forget, for a module that asks only what has reached them since."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("forgetful")
        containers = [Forgetful(folder / name) for name in ("1", "2")]
        for container in containers:
            stack.callback(container.stop)
        yield containers


@pytest.fixture
def start_forgetful(stack: ExitStack, tmp_path: Path) -> Callable[..., Forgetful]:
    """Start a container that forgets, with a folder of its own and that environment."""
    folders = (tmp_path / f"forgetful-{number}" for number in count(1))

    def start(**variables: str) -> Forgetful:
        container = Forgetful(next(folders), **variables)
        stack.callback(container.stop)
        return container

    return start


@pytest.fixture
def platform(start_local: Start) -> Process:
    """A local SageMaker for the test alone."""
    return start_local()


@pytest.fixture
def own_url(request: pytest.FixtureRequest, start_gateway: Start, platform: Process) -> str:
    """A gateway for the test alone, with the module's ``ROUTES``."""
    return start_gateway(platform.url, request.module.ROUTES).websocket


@pytest.fixture
def valkey() -> Iterator[LocalValkey]:
    """A store for the test alone."""
    with running() as valkey:
        register(valkey.password, "the store's password")
        yield valkey


# Responses

CHAT_ROUTES = """
[routes.chat]
endpoint_name = "my-endpoint"
format = "openai-chat"
system = "Be kind."
retries = 0
[routes.short]
endpoint_name = "my-endpoint"
format = "openai-chat"
resume_seconds = {short}
[routes.kept]
endpoint_name = "my-endpoint"
format = "openai-chat"
resume_seconds = 0
"""

WORD_ROUTES = """
[routes.words]
endpoint_name = "my-endpoint"
format = "plain"
[routes.told]
endpoint_name = "my-endpoint"
format = "plain"
on_lost = "replay"
"""

HISTORY_ROUTES = """
[routes.history]
endpoint_name = "my-endpoint"
format = "tgi"
"""


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Chat]:
    """A gateway in front of two containers that answer chats and call functions."""
    folder = tmp_path_factory.mktemp("chat")
    with ExitStack() as stack:
        boxes = [Forgetful(folder / name, module="toolbox") for name in ("1", "2")]
        for box in boxes:
            stack.callback(box.stop)
        platform = stack.enter_context(local(*(f"--container={box.url}" for box in boxes)))
        file = folder / "gateway.toml"
        aws = AWS.format(url=platform.url, transport=transport)
        file.write_text(aws + CHAT_ROUTES.format(short=UNIT))
        yield Chat(boxes, platform, stack.enter_context(gateway(file)).url)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[list[str]]:
    """The addresses of two gateways: of models that remember, and of one that does not."""
    folder = tmp_path_factory.mktemp("words")
    with ExitStack() as stack:
        urls = []
        for name, routes, more in (
            ("words", WORD_ROUTES, ()),
            ("history", HISTORY_ROUTES, ("--forgets",)),
        ):
            platform = stack.enter_context(local(*more))
            file = folder / f"{name}.toml"
            file.write_text(AWS.format(url=platform.url, transport=transport) + routes)
            urls.append(stack.enter_context(gateway(file)).url)
        yield urls


@pytest.fixture
def sdk(chat: Chat) -> Iterator[openai.OpenAI]:
    """OpenAI's client of that gateway; it does not send anything again by itself."""
    with client(chat.url, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def wordy(words: list[str]) -> Iterator[openai.OpenAI]:
    """The same, for models of words."""
    with client(words[0], max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def history(words: list[str]) -> Iterator[openai.OpenAI]:
    """The same, for a model of words that the gateway has to tell everything."""
    with client(words[1], max_retries=0) as sdk:
        yield sdk
