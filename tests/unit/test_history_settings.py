"""Who keeps the conversation: what a route says, and what follows where it says nothing."""

from pathlib import Path

import pytest

from gateway.config import ConfigError, Settings
from gateway.session.policy import Policy, Recovery

ROUTE = '[routes.chat]\nendpoint_name = "e"\n'


def policy(path: Path, text: str) -> Policy:
    file = path / "gateway.toml"
    file.write_text(ROUTE + text)
    settings = Settings.load(file)
    return settings.routes["chat"].policy("chat", settings.server)


@pytest.mark.parametrize("name", ["openai-chat", "lmi", "tgi"])
def test_the_gateway_keeps_it_for_chats(tmp_path: Path, name: str) -> None:
    got = policy(tmp_path, f'format = "{name}"\nsystem = "Be brief."')
    assert (got.sends_history, got.system) == (True, "Be brief.")
    assert (got.on_expiry, got.on_lost) == (Recovery.RENEW, Recovery.RENEW)
    assert got.transcript_bytes == 65_536


@pytest.mark.parametrize(
    "text",
    [
        "",
        'format = "plain"',
        'format = "openai-chat"\nhistory = "model"',
        'format = "openai-chat"\nrequest = { prompt = "$text" }',
    ],
)
def test_the_model_keeps_it_elsewhere(tmp_path: Path, text: str) -> None:
    got = policy(tmp_path, text)
    assert not got.sends_history
    assert (got.on_expiry, got.on_lost) == (Recovery.NONE, Recovery.NONE)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('format = "openai-chat"', True),
        ('format = "openai-chat"\nrequest = { messages = "$messages", max_tokens = 9 }', True),
        ('format = "openai-chat"\nrequest = { messages = ["$messages"] }', False),
        ('format = "openai-chat"\nrequest = { inputs = "$transcript" }', False),
        ('format = "openai-chat"\nrequest = ["$messages"]', False),
        ('format = "openai-chat"\ntext = "text"', False),
        ('format = "openai-chat"\nstream = "off"', False),
        ('format = "openai-chat"\nhistory = "model"', False),
        ('format = "lmi"', False),
        ("", False),
    ],
)
def test_a_model_that_takes_and_gives_chats_as_they_are(
    tmp_path: Path, text: str, is_one: bool
) -> None:
    assert policy(tmp_path, text).chat is is_one


@pytest.mark.parametrize("name", ["messages", "transcript"])
def test_a_request_that_has_a_place_for_it(tmp_path: Path, name: str) -> None:
    assert policy(tmp_path, f'request = {{ all = ["<${name}>", 1] }}').sends_history


def test_what_becomes_of_a_session_may_be_said_all_the_same(tmp_path: Path) -> None:
    got = policy(tmp_path, 'format = "lmi"\non_expiry = "close"\non_lost = "fail"')
    assert (got.on_expiry, got.on_lost) == (Recovery.NONE, Recovery.NONE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('history = "gateway"', "needs a `request` with $messages or $transcript"),
        ('history = "gateway"\nrequest = { a = "$text" }', "needs a `request` with $messages"),
        ('request = { a = "$messages" }\nbody = "json"', '`body = "json"` and `history'),
        ('format = "lmi"\nreplay_seed = "$transcript"', "`replay_seed` and `history"),
        ('system = "Be brief."', '`system` goes with `history = "gateway"`'),
        ('format = "lmi"\nsystem = ""', "at least 1 character"),
    ],
)
def test_what_contradicts_itself(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(tmp_path, text)
    line, _ = str(caught.value).splitlines()
    assert says in line
    assert "routes.chat" in line
