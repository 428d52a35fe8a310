"""What is asked of every configuration that a deployment brings."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner

from gateway import __version__
from gateway.cli import main
from gateway.config import Settings
from gateway.serving import SHUTDOWN_SECONDS
from tests.support.fronts import DEPLOY, changed

__all__ = ["ACTIONS", "DEPLOY", "DEPLOYING", "IMAGE", "USER", "changed", "check", "may_take"]

IMAGE = f"session-gateway:{__version__}"
USER = 10001
"""That of the image."""

DEPLOYING = (DEPLOY.parent / "docs" / "deploying.md").read_text()

README = (DEPLOY.parent / "README.md").read_text()
(POLICY,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
ACTIONS: list[str] = json.loads(POLICY)["Statement"][0]["Action"]
"""All that the README asks AWS for."""


def check(text: str, folder: Path, changes: Mapping[str, str]) -> Settings:
    """The settings of a ``gateway.toml``, which ``session-gateway check`` finds nothing wrong with.

    Args:
        text: The file.
        folder: Of the test's own.
        changes: Of its paths, to files that are there.
    """
    file = folder / "gateway.toml"
    file.write_text(changed(text, changes))
    done = CliRunner().invoke(main, ["check", "--offline", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output, done.output
    return Settings.load(file)


def may_take(settings: Settings) -> float:
    """How many seconds the gateway takes to end, at most."""
    return settings.server.drain_seconds + SHUTDOWN_SECONDS
