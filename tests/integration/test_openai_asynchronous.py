"""Responses of asynchronous routes: they begin now, and end when the model has answered."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from tests.integration.conftest import AWS
from tests.support import valkey
from tests.support.openaisdk import checked, client, streamed, text_of
from tests.support.processes import Process, admin, gateway, local
from tests.support.timing import UNIT

CONFIG = """
s3_endpoint_url = "{url}/_s3"
sqs_endpoint_url = "{url}/_sqs"
[server]
drain_seconds = 20
[store]
kind = "valkey"
url = "{store}"
lease_seconds = 1
[routes.slow]
mode = "async"
endpoint_name = "my-endpoint"
content_type = "text/plain"
poll_seconds = 0.05
poll_max_seconds = 0.2
"""


class House:
    """Two gateways in front of an endpoint that answers later."""

    def __init__(self, stack: ExitStack, folder: Path, transport: str) -> None:
        self.later = stack.enter_context(local("--asynchronous"))
        store = stack.enter_context(valkey.server())
        config = folder / "gateway.toml"
        url = self.later.url
        more = CONFIG.format(url=url, store=store.url)
        config.write_text(AWS.format(url=url, transport=transport) + more)
        self.one, self.other = (stack.enter_context(gateway(config)) for _ in range(2))

    @property
    def submitted(self) -> int:
        """How many turns the endpoint has been given."""
        count: int = admin(self.later)["submitted"]
        return count


@pytest.fixture
def house(tmp_path: Path, transport: str) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(stack, tmp_path, transport)


def over(process: Process, response_id: str) -> openai.types.responses.Response:
    """A response when it is over."""
    with client(process.url) as sdk:
        until = time.monotonic() + 60 * UNIT
        while time.monotonic() < until:
            response = checked(sdk.responses.retrieve(response_id))
            if response.status not in {"queued", "in_progress"}:
                return response
            time.sleep(0.05)
    raise AssertionError("it is not over")


def submitted(house: House, count: int) -> None:
    until = time.monotonic() + 20 * UNIT
    while house.submitted < count:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_in_the_background(house: House) -> None:
    admin(house.later, "/faults", delay_work_seconds=0.5)
    with client(house.one.url) as sdk:
        one = checked(sdk.responses.create(model="slow", input="/echo later", background=True))
        assert (one.status, one.output) == ("in_progress", [])
        done = over(house.other, one.id)
        assert (done.status, done.output_text) == ("completed", "later")
        two, events = streamed(
            sdk.responses.create(
                model="slow", input="/echo on", previous_response_id=one.id, stream=True
            )
        )
        assert text_of(two) == "on"
        assert two["id"][:69] == one.id[:69], "the same session"
        assert [
            event.to_dict(mode="json") for event in sdk.responses.retrieve(two["id"], stream=True)
        ] == events
        failed = over(
            house.one,
            sdk.responses.create(model="slow", input="/fail 500 secret", background=True).id,
        )
        assert failed.error is not None
        assert (failed.status, failed.error.code) == ("failed", "model_error")
        assert "secret" not in failed.to_json()
        assert sdk.responses.create(model="slow", input="/echo whole").output_text == "whole"
    assert house.submitted == 4


def test_what_is_cancelled_and_what_is_deleted(house: House) -> None:
    admin(house.later, "/faults", delay_work_seconds=600)
    with client(house.one.url) as one, client(house.other.url) as other:
        running = one.responses.create(model="slow", input="hi", background=True)
        submitted(house, 1)
        assert checked(other.responses.cancel(running.id)).status == "cancelled"
        assert over(house.one, running.id).status == "cancelled"
        deleted = one.responses.create(model="slow", input="hi", background=True)
        submitted(house, 2)
        other.responses.delete(deleted.id)
        with pytest.raises(openai.NotFoundError):
            one.responses.retrieve(deleted.id)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "death"])
def test_a_response_survives_its_gateway(house: House, how: signal.Signals) -> None:
    admin(house.later, "/faults", delay_work_seconds=4 * UNIT)
    with client(house.one.url) as sdk:
        made = sdk.conversations.create()
        running = sdk.responses.create(
            model="slow", input="/echo at last", background=True, conversation=made.id
        )
    submitted(house, 1)
    time.sleep(0.3 * UNIT)  # so that it is stored where the reply will be
    house.one.stop(how)
    assert admin(house.later)["ended"] == 0
    done = over(house.other, running.id)
    assert (done.status, done.output_text) == ("completed", "at last")
    with client(house.other.url) as sdk:
        assert len(sdk.conversations.items.list(made.id).data) == 2
    assert house.submitted == 1
