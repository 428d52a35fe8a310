"""What values print of themselves: nothing of what is said, and no keys."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import get_type_hints

import pytest
from msgspec import Raw
from pydantic import ValidationError

import gateway
from gateway.config import RouteSettings, Settings
from gateway.errors import ErrorCode
from gateway.protocol.discretion import OPEN
from gateway.protocol.messages import ErrorMessage, MessageDone, MessageSend, SessionOpen
from gateway.session.events import ReplyParts

OURS = {"Advice", "CantStart", "Ending", "Finding", "Kind", "PlatformProblem", "Problem"}
"""Classes whose texts the gateway has written, for people."""
OPERATORS = {
    "Beats",
    "Count",
    "Entry",
    "Origin",
    "Principal",
    "Title",
    "TooSmall",
    "_Rehearsal",
    "_Wish",
}
"""Those with names, addresses and digests, as the operator or an issuer has given them."""
OTHERS = {
    "Built": "an application",
    "Client": "a proxy's word on who has connected, which is logged",
    "EndedTurn": "a digest",
    "Family": "a metric's name, and what it means",
    "Failure": "quotes nothing that was sent or received, see `gateway.sagemaker.said`",
    "Known": "a digest",
    "Plan": "the names of headers",
    "Reading": "numbers, and labels that no client chooses",
    "Ready": "an address",
    "Sources": "numbers likewise",
    "Transition": "the name of a method",
    "_Hop": "the same as Client",
    "_NoKeys": "made up, and the same for everybody",
    "_StreamError": "what AWS calls an error",
}
"""And those that may print the texts that they have for another reason."""


def test_texts_are_sizes() -> None:
    message = MessageSend(id="m1", text="secret", json=Raw(b"[1]"), stream=True)
    assert repr(message) == "MessageSend(id='m1', text=<6>, json=<3>, stream=True)"
    assert message.__rich_repr__()[1] == ("text", "<6>")
    assert repr(SessionOpen(token="secret")) == "SessionOpen(token=<6>)"
    assert repr(ReplyParts(1, ["secret", b"x"])) == "ReplyParts(turn=1, parts=[<6>, <1>])"
    assert repr(ReplyParts(1, ("secret", {"a": "secret"}, None))) == (  # type: ignore[arg-type]
        "ReplyParts(turn=1, parts=[<6>, …, None])"
    )
    error = ErrorMessage(code=ErrorCode.INTERNAL, message="m", retryable=False)
    assert repr([error]) == (
        "[ErrorMessage(code=<ErrorCode.INTERNAL: 'internal'>, message=<1>, retryable=False)]"
    )
    done = MessageDone(event=1, id="m1", status="completed", deltas=0, duration_ms=1)
    assert repr(done) == (
        "MessageDone(event=1, id='m1', status='completed', deltas=0, duration_ms=1)"
    )


def test_what_a_container_is_sent_is_not_shown_by_settings() -> None:
    session = {"open_body": {"key": "secret"}}
    route = RouteSettings(
        endpoint_name="e",
        session=session,
        request={"key": "secret", "text": "$text"},
        custom_attributes="secret",
        on_lost="replay",
        replay_seed=["secret", "$transcript"],
    )
    told = RouteSettings(endpoint_name="e", format="openai-chat", system="secret")
    settings = Settings(routes={"chat": route, "told": told})
    for each in (settings, route, route.policy("chat", settings.server), route.body_format):
        assert "secret" not in repr(each)
        assert "secret" not in str(each)
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"routes": {"chat": {"endpoint_name": "e", "secret": "secret"}}})
    assert "input_value" not in str(caught.value)


TEXT = re.compile(r"\b(str|bytes|Any|Raw|Mapping|dict)\b")


def talkative() -> Iterator[str]:
    """Classes that print all of their fields, and have such as could hold a secret."""
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if module.name.startswith(("gateway.local", "gateway.client", "gateway.__main__")):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if not isinstance(kind, type) or kind.__module__ != module.name:
                continue
            is_value = hasattr(kind, "__struct_fields__") or hasattr(kind, "_fields")
            printer = getattr(kind.__repr__, "__module__", "")
            if not is_value or printer.startswith("gateway."):
                continue
            if any(
                name not in OPEN and TEXT.search(str(hint))
                for name, hint in get_type_hints(kind).items()
            ):
                yield kind.__name__


def test_no_other_value_prints_texts() -> None:
    assert {*talkative()} == OURS | OPERATORS | OTHERS.keys()
