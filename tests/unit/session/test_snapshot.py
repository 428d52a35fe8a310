"""What is stored of a session. That this is all of it, each script shows that is run twice."""

from typing import Any

import msgspec
import pytest

from gateway.errors import ErrorCode, Failure
from gateway.session.policy import Recovery
from gateway.session.snapshot import Snapshot, take
from tests.support.script import START, Script, send


def stored(script: Script) -> dict[str, Any]:
    snapshot: dict[str, Any] = msgspec.json.decode(
        take(script.session, script.clock, script.now).encode()
    )
    return snapshot


def test_times_are_those_of_the_day_and_states_have_names() -> None:
    script = Script(resume_seconds=30).ready()
    script.detach(after=5)
    snapshot = stored(script)
    assert (snapshot["state"], snapshot["life"]) == ("ready", "open")
    assert snapshot["absent_since"] == START + 5
    assert snapshot["timers"]["detached"] == START + 35


@pytest.mark.parametrize("recovery", ["renew", "replay"])
def test_a_renewal_has_the_name_that_the_settings_have_for_it(recovery: str) -> None:
    script = Script(on_lost=Recovery(recovery)).ready()
    script.step(send("a"))
    script.fail(Failure(code=ErrorCode.SESSION_LOST, message="Gone."))
    assert stored(script)["renewal"]["recovery"] == recovery


def test_what_is_no_snapshot() -> None:
    with pytest.raises(msgspec.DecodeError):
        Snapshot.decode(b"{}")
