"""Settings of asynchronous routes: what goes with them, what does not, and what is warned of."""

import json
import re
from pathlib import Path

import botocore.session
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from gateway.cli import main
from gateway.config import ConfigError, RouteSettings, ServerSettings, Settings
from gateway.config.routes import _NOT_ASYNC
from gateway.config.settings import read
from gateway.formats.streams import StreamKind
from gateway.protocol.options import PARAMETERS
from gateway.sagemaker.options import AsyncOptions
from gateway.session.policy import Opening

ROOT = Path(__file__).parents[2]
ROUTE = '[aws]\nregion = "us-east-1"\n[routes.slow]\nendpoint_name = "e"\nmode = "async"\n'


def route(**settings: object) -> RouteSettings:
    return RouteSettings.model_validate({"endpoint_name": "e", "mode": "async", **settings})


def refused(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        route(**settings)
    return str(caught.value)


def test_a_route_has_sound_defaults() -> None:
    made = route()
    assert made.profile.opening is Opening.NONE
    assert (made.resume_seconds, made.events_seconds) == (3600, 3600 + 17 * (21_600 + 900 + 60))
    assert made.async_options == AsyncOptions()
    policy = made.policy("slow", ServerSettings())
    assert (policy.streams, policy.opening) == (False, Opening.NONE)
    assert Settings(routes={"slow": made}).routes["slow"] is made


def test_a_conversation_is_no_more_than_a_call_carries() -> None:
    policy = route().policy("slow", ServerSettings())
    assert policy.body_bytes == 128_000
    policy = route(input_location="s3://bucket/").policy("slow", ServerSettings())
    assert policy.body_bytes is None


def test_what_is_set_wins() -> None:
    made = route(resume_seconds=70, request_ttl_seconds=60, filename="$id.json")
    assert (made.resume_seconds, made.events_seconds) == (70, 70 + 17 * (60 + 900 + 60))
    made = route(queued_messages=1, invocation_timeout_seconds=40, request_ttl_seconds=100)
    assert made.policy("slow", ServerSettings()).log_seconds == 3600 + 2 * 200
    made = route(log_seconds=9000, request_ttl_seconds=60, filename="$id.json")
    assert made.policy("slow", ServerSettings()).log_seconds == 9000
    assert made.async_options.filename == "$id.json"
    assert made.async_options.request_ttl_seconds == 60


def test_a_format_streams_nothing_there() -> None:
    made = route(format="openai-chat")
    assert made.body_format.stream is StreamKind.OFF
    policy = made.policy("slow", ServerSettings())
    assert policy.sends_history
    assert not policy.streams


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"session": "torchserve"}, "has no sessions; leave `session` out"),
        ({"session": "prefix-aware"}, "has no sessions; leave `session` out"),
        ({"stream": "sse"}, "has no streams"),
        ({"target_variant": "blue"}, "has no `target_variant`"),
        ({"allow": ["target_model"]}, "has no `target_model`"),
        ({"inference_id": "i" * 32}, "`inference_id` may have 31 characters"),
        ({"poll_seconds": 30}, "(30) is more than `poll_max_seconds` (20)"),
        ({"poll_max_seconds": 0.5}, "(1) is more than `poll_max_seconds` (0.5)"),
        ({"request_ttl_seconds": 59}, "greater than or equal to 60"),
        ({"invocation_timeout_seconds": 3601}, "less than or equal to 3600"),
        ({"input_location": "s3://bucket/prefix"}, "with `/` at its end"),
        ({"input_location": "https://bucket/"}, "expected a prefix such as s3://"),
        ({"input_location": f"s3://bucket/{'x' * 900}/"}, "at most 900 characters"),
        ({"filename": "reply.json"}, "needs $id in it"),
        ({"filename": "$id.a.b"}, "expected up to 32 letters"),
        ({"filename": "a-very-long-name-$id"}, "expected up to 32 letters"),
        ({"s3_output_path_extension": "s3://bucket"}, "expected a path"),
        ({"s3_output_path_extension": "$user"}, "expected a path"),
        ({"notification_queue_url": "arn:aws:sqs:us-east-1:1:q"}, "expected an address"),
        ({"on_lost": "replay"}, "there is no session to replay"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, object], says: str) -> None:
    assert says in refused(**settings)


@pytest.mark.parametrize("name", AsyncOptions.__struct_fields__)
def test_nothing_of_it_goes_with_other_routes(name: str) -> None:
    value = {
        "filename": "$id",
        "input_location": "s3://bucket/",
        "notification_queue_url": "https://q",
        "s3_output_path_extension": "a",
    }.get(name, 100)
    with pytest.raises(ValidationError, match=f'`{name}` goes with `mode = "async"`'):
        RouteSettings.model_validate({"endpoint_name": "e", name: value})


def test_a_mistake_is_told_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE + 'stream = "sse"\n')
    with pytest.raises(ConfigError, match=r"gateway.toml:\d: routes.slow: .*no streams"):
        read(file)


def test_it_is_what_the_api_has() -> None:
    """What a route may say is held to the API model."""
    service = botocore.session.get_session().get_service_model("sagemaker-runtime")
    members = service.operation_model("InvokeEndpointAsync").input_shape.members
    assert {PARAMETERS[name] for name in _NOT_ASYNC} == {*PARAMETERS.values()} - {*members}
    limits = {
        name: (shape.metadata["min"], shape.metadata["max"])
        for name, shape in members.items()
        if shape.type_name == "integer"
    }
    assert limits == {
        "RequestTTLSeconds": (60, 21_600),
        "InvocationTimeoutSeconds": (1, 3600),
    }
    assert members["Body"].metadata["max"] == 128_000
    name = re.compile(members["Filename"].metadata["pattern"])
    assert name.fullmatch(f"{'0' * 24}.json")
    assert members["Filename"].metadata["max"] == 32


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("", "routes.slow.mode: turns that wait for a reply when the gateway stops"),
        (
            '[store]\nkind = "valkey"\nurl = "valkey://127.0.0.1:1"',
            None,
        ),
        (
            'notification_queue_url = "https://sqs.eu-west-1.amazonaws.com/1/q"',
            "routes.slow.notification_queue_url: the queue is in eu-west-1, but the gateway calls",
        ),
        (
            'notification_queue_url = "https://sqs.us-east-1.amazonaws.com/1/q"',
            "routes.slow.mode",
        ),
    ],
)
def test_check_speaks_of_it(tmp_path: Path, more: str, says: str | None) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"{ROUTE}{more}\n")
    result = CliRunner().invoke(main, ["check", "--offline", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert "route slow (default): endpoint e, asynchronous, conversation" in result.output
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    if says is None:
        assert not warnings
    else:
        assert any(says in line for line in warnings)
    assert any("notification_queue_url" in line for line in warnings) is ("eu-west" in more)


def test_check_says_where_objects_are_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    for url, other, warns in (
        ("http://127.0.0.1:9000", "", True),
        ("http://127.0.0.1:9000", 's3_endpoint_url = "http://127.0.0.1:9000/_s3"', False),
        ("https://vpce-1.example.com", "", False),
    ):
        more = f'endpoint_url = "{url}"\n{other}\n[routes.slow]'
        file.write_text(ROUTE.replace("[routes.slow]", more))
        result = CliRunner().invoke(main, ["check", "--offline", "--config", str(file)])
        assert result.exit_code == 0, result.output
        assert ("aws.endpoint_url: is on this machine" in result.stderr) is warns


def test_the_policy_has_each_right() -> None:
    policy = json.loads((ROOT / "deploy" / "iam" / "asynchronous.json").read_text())
    text = (ROOT / "docs" / "asynchronous.md").read_text()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert f"`{action}`" in text
