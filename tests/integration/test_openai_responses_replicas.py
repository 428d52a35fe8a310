"""Responses where several gateways share a store: any of them serves any id, to whom it belongs."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.integration.conftest import AWS
from tests.support import valkey
from tests.support.openaisdk import Json, checked, client, streamed, text_of
from tests.support.processes import Forgetful, Process, gateway, local
from tests.support.secrets import register
from tests.support.timing import UNIT
from tests.support.tokens import add_key

CONFIG = """
[server]
drain_seconds = 20
[store]
kind = "valkey"
url = "{url}"
lease_seconds = {lease}
[auth.keys]
file = "{keys}"
[routes.chat]
endpoint_name = "my-endpoint"
format = "openai-chat"
"""


class House:
    """Two gateways in front of one container, and two people.

    Attributes:
        one: A gateway.
        other: Another.
        ada: Somebody's key.
        bob: Somebody else's.
    """

    def __init__(self, stack: ExitStack, folder: Path, transport: str) -> None:
        store = stack.enter_context(valkey.server())
        self.box = Forgetful(folder / "box", module="toolbox")
        stack.callback(self.box.stop)
        platform = stack.enter_context(local(f"--container={self.box.url}"))
        keys = folder / "keys.toml"
        self.ada, self.bob = add_key(keys, "ada"), add_key(keys, "bob")
        config = folder / "gateway.toml"
        more = CONFIG.format(url=store.url, lease=2 * UNIT, keys=keys)
        config.write_text(AWS.format(url=platform.url, transport=transport) + more)
        self.one, self.other = (stack.enter_context(gateway(config)) for _ in range(2))

    @contextmanager
    def at(self, process: Process, key: str | None = None) -> Iterator[openai.OpenAI]:
        """A client of one of the gateways, which sends nothing again by itself."""
        with client(process.url, key or self.ada, max_retries=0) as sdk:
            yield sdk

    def turns(self, mark: str) -> int:
        """How many turns have reached the model whose newest message has that in it."""
        received = self.box.received()
        return sum(mark in str(turn["body"]["messages"][-1]) for turn in received)


@pytest.fixture
def house(tmp_path: Path, transport: str) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(stack, tmp_path, transport)


def over(sdk: openai.OpenAI, response_id: str) -> openai.types.responses.Response:
    """A response when it is over."""
    until = time.monotonic() + 60 * UNIT
    while time.monotonic() < until:
        response = checked(sdk.responses.retrieve(response_id))
        if response.status not in {"queued", "in_progress"}:
            return response
        time.sleep(0.05)
    raise AssertionError("it is not over")


def test_any_gateway_serves_any_id(house: House) -> None:
    with house.at(house.one) as one, house.at(house.other) as other:
        first = one.responses.create(model="chat", input="shared first")
        register(first.id, "a response's id")
        assert checked(other.responses.retrieve(first.id)) == first
        second, _ = streamed(
            other.responses.create(
                model="chat", input="shared second", previous_response_id=first.id, stream=True
            )
        )
        register(second["id"], "a response's id")
        assert second["id"][:69] == first.id[:69], "the same session"
        events = streamed(one.responses.retrieve(second["id"], stream=True))[1]
        rest = other.responses.retrieve(second["id"], stream=True, starting_after=3)
        assert [event.to_dict(mode="json") for event in rest] == events[4:]
        running = one.responses.create(model="chat", input="/count 2000", background=True)
        while not other.responses.retrieve(running.id).output_text:
            pass
        assert checked(other.responses.cancel(running.id)).status == "cancelled"
        assert over(one, running.id).status == "cancelled"
        asked: Any = {"model": "chat", "input": "/slow 0.3 shared again"}
        same = [
            sdk.responses.create(**asked, extra_headers={"x-stainless-retry-count": count})
            for sdk, count in ((one, "0"), (other, "1"))
        ]
        assert same[0] == same[1]
        assert house.turns("shared again") == 1
        made = one.conversations.create()
        for sdk, mark in ((one, "a"), (other, "b")):
            sdk.responses.create(model="chat", input=mark, conversation=made.id)
        assert len(one.conversations.items.list(made.id).data) == 4


def test_anothers_are_not_there(house: House) -> None:
    with house.at(house.one) as ada, house.at(house.other, house.bob) as bob:
        response = ada.responses.create(model="chat", input="hi")
        made = ada.conversations.create()
        for wrong in (
            lambda: bob.responses.retrieve(response.id),
            lambda: bob.responses.retrieve(response.id, stream=True),
            lambda: bob.responses.cancel(response.id),
            lambda: bob.responses.delete(response.id),
            lambda: bob.responses.input_items.list(response.id),
            lambda: bob.conversations.retrieve(made.id),
            lambda: bob.conversations.items.list(made.id),
            lambda: bob.conversations.delete(made.id),
            lambda: bob.responses.create(model="chat", input="x", conversation=made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                wrong()
        with pytest.raises(openai.BadRequestError, match="not found"):
            bob.responses.create(model="chat", input="x", previous_response_id=response.id)
        assert ada.responses.retrieve(response.id) == response
    with (
        house.at(house.one, "nobody") as nobody,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        nobody.responses.create(model="chat", input="x")
    assert caught.value.code == "invalid_api_key"


def test_a_restart_loses_nothing(house: House) -> None:
    with house.at(house.one) as one, house.at(house.other) as other:
        response = one.responses.create(model="chat", input="restart")
        running = one.responses.create(
            model="chat", input="/count 60", previous_response_id=response.id, background=True
        )
        begun = list[Json]()
        stream = one.responses.create(model="chat", input="/count 60", stream=True)
        for event in stream:
            begun.append(event.to_dict(mode="json"))
            if len(begun) == 6:
                house.one.popen.send_signal(signal.SIGTERM)
                break
        stream.close()
        assert house.one.wait() == 0
        response_id: Any = begun[0]["response"]["id"]
        rest = other.responses.retrieve(response_id, stream=True, starting_after=5)
        final, _ = streamed(rest, after=5)
        assert text_of(final) == "".join(f"{number} " for number in range(1, 61))
        done = over(other, running.id)
        assert done.output_text.endswith("60 ")
        on = other.responses.create(model="chat", input="after", previous_response_id=done.id)
        assert on.id[:69] == response.id[:69], "the same session"


def test_a_death_is_told(house: House) -> None:
    with house.at(house.one) as one, house.at(house.other) as other:
        before = one.responses.create(model="chat", input="alive")
        running = one.responses.create(
            model="chat", input="/count 3000", previous_response_id=before.id, background=True
        )
        while not other.responses.retrieve(running.id).output_text:
            pass
        house.one.stop(signal.SIGKILL)
        lost = over(other, running.id)
        assert lost.status == "failed"
        assert lost.error is not None
        assert "may have" in lost.error.message
        assert house.turns("/count 3000") == 1
        on = other.responses.create(model="chat", input="go on", previous_response_id=before.id)
        assert on.output_text == "You said: go on"
