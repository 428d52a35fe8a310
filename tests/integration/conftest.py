"""Gateways and local SageMakers as processes, as many as a test wants."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import Process, gateway, local

Start = Callable[..., Process]

AWS = '[aws]\nregion = "us-east-1"\nendpoint_url = "{url}"\n'


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
def start_gateway(stack: ExitStack, tmp_path: Path) -> Start:
    """Start a gateway with that configuration in front of that address."""

    def start(url: str, config: str, *arguments: str) -> Process:
        file = tmp_path / "gateway.toml"
        file.write_text(AWS.format(url=url) + config)
        return stack.enter_context(gateway(file, *arguments))

    return start
