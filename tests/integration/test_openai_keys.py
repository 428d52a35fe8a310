"""OpenAI's client with the gateway's own keys: who may use what, and how much."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.integration.conftest import Start
from tests.support.processes import Forgetful, Process
from tests.support.tokens import add_key

CONFIG = """
[auth.keys]
file = "{file}"
[limits]
messages_per_second = 2
sessions_per_principal = 3
[routes.tools]
endpoint_name = "my-endpoint"
format = "openai-chat"
[routes.others]
endpoint_name = "my-endpoint"
format = "openai-chat"
"""


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Forgetful]:
    container = Forgetful(tmp_path / "toolbox", module="toolbox")
    yield container
    container.stop()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.toml"
    return {"ada": add_key(file, "ada"), "bob": add_key(file, "bob", ["tools"])}


@pytest.fixture
def served(
    keys: dict[str, str],  # noqa: ARG001 - they are in the file
    tmp_path: Path,
    container: Forgetful,
    start_local: Start,
    start_gateway: Start,
) -> Process:
    platform = start_local(f"--container={container.url}")
    return start_gateway(platform.url, CONFIG.format(file=tmp_path / "keys.toml"))


def ask(served: Process, key: str, *messages: Any, model: str = "tools", **options: Any) -> Any:
    with OpenAI(base_url=f"{served.url}/openai/v1", api_key=key, **options) as client:
        return client.chat.completions.with_raw_response.create(
            model=model, messages=[*messages] or [{"role": "user", "content": "Hello"}]
        )


def test_who_may_use_what(served: Process, keys: dict[str, str]) -> None:
    with pytest.raises(openai.AuthenticationError) as nobody:
        ask(served, "sgk_wrong")
    assert nobody.value.code == "invalid_api_key"
    with OpenAI(base_url=f"{served.url}/openai/v1", api_key=keys["bob"]) as client:
        assert [model.id for model in client.models.list()] == ["tools"]
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        ask(served, keys["bob"], model="others")
    assert forbidden.value.code == "forbidden"
    assert ask(served, keys["bob"]).parse().choices[0].message.content == "You said: Hello"


def test_nobody_goes_on_with_anothers_session(
    served: Process, keys: dict[str, str], container: Forgetful
) -> None:
    """Though both say the same."""
    said = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "You said: Hello"},
        {"role": "user", "content": "more"},
    ]
    ask(served, keys["ada"])
    ask(served, keys["bob"], *said)
    ask(served, keys["ada"], *said)
    first, others, again = [turn["session"] for turn in container.received()]
    assert first == again
    assert others != first


def test_limits_are_told_and_waited_for(
    served: Process, keys: dict[str, str], container: Forgetful
) -> None:
    headers = ask(served, keys["ada"]).headers
    assert headers["x-ratelimit-limit-requests"] == "4"
    assert int(headers["x-ratelimit-remaining-requests"]) >= 3
    for number in range(6):
        done = ask(served, keys["ada"], {"role": "user", "content": f"One of many: {number}"})
        assert done.parse().choices[0].message.content == f"You said: One of many: {number}"
    many = [turn for turn in container.received() if "One of many" in json.dumps(turn["body"])]
    assert len(many) == 6, (
        "each once, though some had to wait, and there are three sessions at most"
    )
