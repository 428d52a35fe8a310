"""What the documents say is what there is. Run as a module, this writes docs/configuration.md."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gateway.cli import main
from gateway.config import (
    EXAMPLE,
    AwsSettings,
    JwtSettings,
    KeySettings,
    LimitSettings,
    MetricsSettings,
    OpenAiSettings,
    PageSettings,
    RouteSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    TlsSettings,
    TraceSettings,
)
from gateway.errors import WAIT_SECONDS, CloseCode, ErrorCode
from gateway.guard import overload
from gateway.guard.model import QUEUED
from gateway.sagemaker.errors import MAX_RETRY_AFTER
from gateway.sagemaker.profiles import PROFILES, Profile
from gateway.security import door, keysets, limits, reloading, tokens
from gateway.security.keys import Entry, read

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
AUTHENTICATION = (ROOT / "docs" / "authentication.md").read_text()
OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text()
LIMITS = (ROOT / "docs" / "limits.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
CONFIGURATION = ROOT / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

Settings come from command-line flags, environment variables and one TOML file, in this order of
precedence; then defaults apply. The file is the one named by `--config`, else `gateway.toml` in the
working directory. The environment variable of a setting is `GATEWAY_SECTION__KEY`, such as
`GATEWAY_SERVER__PORT` or `GATEWAY_ROUTES__CHAT__IDLE_SECONDS`.

`session-gateway init` writes a first file. `session-gateway check` reports mistakes with their
line, and looks for the region, the profile, the credentials and the token issuer's keys as `serve`
would: run it on the same machine and as the same user.

- `--offline` skips every check that needs another machine, for example in a build.
- `--live` also tries each route, which invokes the models; see
  [troubleshooting](troubleshooting.md).

Every command exits with 2 if it was used wrongly or if the configuration is wrong, and with 1 if
something else failed. `check` exits with 0 if there are only warnings, and with 1 if a route fails
with `--live`.

Times are in seconds, sizes in bytes.
"""

PROFILE = """
## A session profile of your own

Instead of a profile's name, `session` may be a table that describes your container:

```toml
[routes.chat.session]
opening = "call"                         # "turn": the first message opens it; "none": no sessions
open_body = { op = "open" }
close_body = { op = "close" }
session_id_key = "conversation"          # key of the id in JSON bodies; omit it if there is none
lost = ["unknown conversation"]          # error texts, in lower case, that mean: session lost
perhaps_lost = ["failed"]                # error texts that other failures share with a lost session
full = ["too many conversations"]        # error texts that mean: no room for another session
statuses = [404, 503]                    # error statuses whose texts are searched for these
```
"""


SECTIONS: dict[str, type[BaseModel]] = {
    "limits": LimitSettings,
    "openai": OpenAiSettings,
    "routes": RouteSettings,
    "server": ServerSettings,
    "store": StoreSettings,
}


def anchors(document: Path) -> set[str]:
    """What its headings are called in addresses."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, Profile):
        value = next(name for name, profile in PROFILES.items() if profile is value)
    if value is None:
        return "none"
    return f"`{json.dumps(sorted(value) if isinstance(value, frozenset) else value)}`"


def printed() -> str:
    parts = [INTRODUCTION]
    for title, section in (
        ("[server]", ServerSettings),
        ("[auth.keys]", KeySettings),
        ("[auth.jwt]", JwtSettings),
        ("[tls]", TlsSettings),
        ("[limits]", LimitSettings),
        ("[metrics]", MetricsSettings),
        ("[traces]", TraceSettings),
        ("[store]", StoreSettings),
        ("[openai]", OpenAiSettings),
        ("[page]", PageSettings),
        ("[aws]", AwsSettings),
        ("[routes.NAME]", RouteSettings),
    ):
        assert section.__doc__ is not None
        about = section.__doc__.partition(": ")[2]
        parts.append(f"\n## `{title}`\n\n{about[0].upper()}{about[1:]}\n")
        parts.append("\n| key | default | meaning |\n| --- | --- | --- |\n")
        for name, field in section.model_fields.items():
            parts.append(f"| `{name}` | {default(field.default)} | {field.description} |\n")
    return "".join([*parts, PROFILE])


def test_the_settings_are_in_the_document() -> None:
    assert CONFIGURATION.read_text() == printed()


def test_the_readmes_configurations_are_ones() -> None:
    for example in re.findall(r"```toml\n(.*?)```", README, re.DOTALL):
        settings = Settings.model_validate(tomllib.loads(example))
        assert list(settings.routes) == ["chat"]
    assert f"```toml\n{EXAMPLE}```" in README, "what a command shows that finds no configuration"


def test_the_documents_configurations_are_ones() -> None:
    files = 0
    for document in (AUTHENTICATION, OBSERVABILITY, OPERATIONS):
        for example in re.findall(r"```toml\n(.*?)```", document, re.DOTALL):
            said = tomllib.loads(example)
            if "ada" in said:
                files += 1
                continue
            Settings.model_validate({"routes": {"chat": {"endpoint_name": "e"}}, **said})
    assert files == 1


def test_the_documents_file_of_keys_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(\[ada\].*?)```", AUTHENTICATION, re.DOTALL)
    file = tmp_path / "keys.toml"
    file.write_text(example)
    assert set(Entry.__struct_fields__) == set(tomllib.loads(example)["ada"])
    assert read(file)["ada"].connections == 10


def test_the_documents_command_makes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = "key add ada --file keys.toml --routes chat"
    for document in (README, AUTHENTICATION):
        assert f"session-gateway {command}" in document
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"sgk_.{43}\n", done.output)


def test_the_numbers_of_authentication() -> None:
    for number in (
        f"within {door.TICKET_SECONDS:.0f} seconds",
        f"checks every {reloading.LOOK_SECONDS:.0f} seconds",
        f"again after {keysets.FRESH_SECONDS / 60:.0f} minutes",
        f"{tokens.MAX_TOKEN:,} characters",
        f"{tokens.MIN_SECRET} bytes",
    ):
        assert number in AUTHENTICATION, number
    assert keysets.REFETCH_SECONDS == 60, "once a minute"


def test_the_limits_are_in_the_document() -> None:
    table = LIMITS.partition("| --- |")[2].partition("\n\n")[0]
    rows = [re.split(r" ?\| ?", row)[1:-1] for row in table.splitlines()[1:]]
    named = set()
    for name, shown, answer, _ in rows:
        section, key = name.strip("`").replace("routes.*", "routes").split(".")
        field = SECTIONS[section].model_fields[key]
        assert shown == default(field.default), name
        named.add((section, key))
        codes = {int(code) for code in re.findall(r"\b4\d{3}\b|\b1\d{3}\b", answer)}
        assert codes <= {*CloseCode}, name
        for code in re.findall(r"`([a-z_]+)`", answer):
            assert code in {*ErrorCode}, name
    assert named >= {("limits", key) for key in LimitSettings.model_fields}


def test_the_numbers_of_overload() -> None:
    most = RouteSettings.model_fields["max_turns_in_flight"].default
    assert f"`routes.*.max_turns_in_flight` ({most})" in LIMITS
    for number in (
        f"After {overload.FAILURES} calls in a row",
        f"up to {overload.MAX_OPEN_SECONDS:.0f} seconds",
        f"always have it: {WAIT_SECONDS:.0f} second,",
        f"`Retry-After`, up to {MAX_RETRY_AFTER:.0f} seconds.",
    ):
        assert number in LIMITS, number
    numbers = (overload.BACKOFF, overload.SLOW, QUEUED, overload.OPEN_SECONDS)
    assert numbers == (0.9, 2.0, 10, 1.0), "a tenth less, twice as long, ten for each, a second"
    assert limits.BURST_SECONDS == 2, "twice the rate"
    shares = (door.SHARES, door.SITE_SHARES, door.SITE_BITS, door.KEPT)
    assert shares == (4, 2, 48, 0.5), "a quarter, half of it for a /48, and half is kept"
    rate = LimitSettings.model_fields["handshakes_per_second"].default
    assert f"{limits.BURST_SECONDS * rate:.0f} by default" in LIMITS


def test_each_threat_has_a_test() -> None:
    table = SECURITY.partition("| threat |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:-1] for row in table.splitlines()[2:]]
    assert len(rows) > 20
    for threat, _, tested in rows:
        paths = re.findall(r"`([\w./-]+/[\w./-]+)`", tested)
        assert any(path.startswith("tests/") for path in paths), threat
        for path in paths:
            assert (ROOT / path).exists(), path


def test_the_profiles_own_example_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PROFILE, re.DOTALL)
    route = tomllib.loads(example)["routes"]["chat"]
    assert RouteSettings(endpoint_name="e", **route).profile.session_id_key == "conversation"


def test_the_readme_names_what_there_is() -> None:
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]+))?\)", file.read_text()):
            target = file.parent / link if link else file
            assert target.exists(), (file, link)
            assert not anchor or anchor in anchors(target), (file, link, anchor)
    assert all(f"| `{name}` |" in README for name in PROFILES)
    (policy,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert json.loads(policy)["Statement"][0]["Action"] == [
        "sagemaker:InvokeEndpoint",
        "sagemaker:InvokeEndpointWithResponseStream",
    ]


def test_every_line_of_the_log_is_in_the_document() -> None:
    rooms = [path for path in (ROOT / "gateway").iterdir() if path.name not in {"local", "client"}]
    files = [file for room in rooms for file in (room.rglob("*.py") if room.is_dir() else [room])]
    source = "".join(file.read_text() for file in files if file.suffix == ".py")
    call = r'\blog\.(?:debug|info|warning|error|exception|log)\((?:[^"()]*, )?\s*"([^"]+)"'
    logged = {*re.findall(call, source)} | {
        "calls to AWS will fail",
        "calls to AWS may fail",
        "turn",
    }
    table = OPERATIONS.partition("| event |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert {event for row in rows for event in re.findall("`(.+?)`", row)} == logged
    assert all(f'"{event}"' in source for event in logged)


def test_the_proxys_examples_say_what_the_document_says() -> None:
    (example, *_) = re.findall(r"```toml\n(.*?)```", OPERATIONS, re.DOTALL)
    assert ServerSettings.model_validate(tomllib.loads(example)["server"]).public_origin
    for name in ("nginx.conf", "Caddyfile"):
        told = (ROOT / "deploy" / name).read_text().replace("#   ", "")
        assert example in told, name


if __name__ == "__main__":
    CONFIGURATION.write_text(printed())
