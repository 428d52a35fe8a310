"""The demonstration: a gateway, SageMaker on this machine and two models, all in one process."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.app import serve
from gateway.config import Settings, load
from gateway.local.builtin import BuiltinModel
from gateway.local.language import LanguageModel, LanguageModelUnavailable
from gateway.local.language import load as find_weights
from gateway.local.platform import Endpoint
from gateway.local.server import ACCESS_KEY, REGION, SECRET_KEY, running

INSTANCES = 2


async def demo(
    *,
    port: int,
    model: Path | None,
    builtin_only: bool,
    say: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> None:
    """Run until SIGINT or SIGTERM.

    Args:
        port: Of the gateway; 0 takes a free one.
        model: A GGUF file in place of the one that is installed.
        builtin_only: Leave the language model out.
        say: Tells people what is going on.
        on_ready: Called with the page's address.

    Raises:
        LanguageModelUnavailable: The file that was asked for is no model.
    """
    endpoints = [
        Endpoint("builtin", [BuiltinModel(f"i-{n}") for n in range(1, INSTANCES + 1)]),
    ]
    if not builtin_only:
        try:
            weights = find_weights(model)
        except LanguageModelUnavailable as missing:
            say(f"Only the built-in model is here, since {missing}")
        else:
            say(f"Loading {weights.name} into {INSTANCES} instances …")
            instances = [LanguageModel(weights, f"i-{n}") for n in range(1, INSTANCES + 1)]
            for instance in instances:
                await instance.load()
            endpoints.insert(0, Endpoint("language", instances))
    async with running(endpoints) as url:
        say(f"SageMaker on this machine: {url}")
        with _credentials():
            await serve(_settings(url, endpoints, port), on_ready=on_ready)


def _settings(url: str, endpoints: list[Endpoint], port: int) -> Settings:
    """Routes named as the endpoints."""
    return load(
        None,
        {
            "server": {"port": port, "log_level": "WARNING", "drain_seconds": 3},
            "aws": {"region": REGION, "endpoint_url": url},
            "routes": {
                endpoint.name: {
                    "endpoint_name": endpoint.name,
                    "session": "container-standards",
                    "content_type": "text/plain; charset=utf-8",
                }
                for endpoint in endpoints
            },
        },
    )


@contextlib.contextmanager
def _credentials() -> Iterator[None]:
    """Sign as the local server asks, whatever keys the user has."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    before = {name: os.environ.get(name) for name in (*keys, "AWS_SESSION_TOKEN", "AWS_PROFILE")}
    for name in before:
        os.environ.pop(name, None)
    os.environ.update(keys)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
