"""What the documents say is what there is. Run as a module, this writes docs/configuration.md."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from gateway.config import (
    EXAMPLE,
    AwsSettings,
    JwtSettings,
    KeySettings,
    LimitSettings,
    RouteSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    TlsSettings,
)
from gateway.sagemaker.profiles import PROFILES, Profile

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
CONFIGURATION = ROOT / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

Settings come from one TOML file (`--config`, else `gateway.toml` in the working directory), from
the environment and from flags. A flag wins over the environment, that over the file, that over the
default. In the environment a setting is `GATEWAY_SECTION__KEY`, such as `GATEWAY_SERVER__PORT` or
`GATEWAY_ROUTES__CHAT__IDLE_SECONDS`.

`session-gateway check` says what is wrong, with the line of the file, and looks for the region, the
profile and the credentials as `serve` would: run it on the same machine, as the same user. Where
credentials are not to be had, as in a build, `--offline` leaves them out. Its exit code is 2 where
the gateway can't work so; a warning leaves it 0. All commands end with 2 for wrong use or a wrong
configuration, and with 1 where something has failed.

Times are in seconds, sizes in bytes.
"""

PROFILE = """
## A session profile of your own

In place of a name, `session` may be a table:

```toml
[routes.chat.session]
opening = "call"                         # "turn": the first message opens it; "none": no sessions
open_body = { op = "open" }
close_body = { op = "close" }
session_id_key = "conversation"          # where JSON bodies carry the id too; left out: nowhere
lost = ["unknown conversation"]          # what its errors say, in lower case, of a lost session
perhaps_lost = ["failed"]                # what they say then, but of other faults too
full = ["too many conversations"]        # and when it has no room for another
statuses = [404, 503]                    # the statuses of errors that are read for these
```
"""


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
        ("[store]", StoreSettings),
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


def test_the_profiles_own_example_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PROFILE, re.DOTALL)
    route = tomllib.loads(example)["routes"]["chat"]
    assert RouteSettings(endpoint_name="e", **route).profile.session_id_key == "conversation"


def test_the_readme_names_what_there_is() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    for link in re.findall(r"\]\(([^)#:]+)\)", OPERATIONS):
        assert (ROOT / "docs" / link).exists(), link
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
    logged = {*re.findall(call, source)} | {"calls to AWS will fail", "calls to AWS may fail"}
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
