"""The unit for systemd: what it starts is there, and it leaves the time to drain."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

from gateway.config import ServerSettings
from tests.documents.snippets import command

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "session-gateway.service"


def unit() -> configparser.SectionProxy:
    """Its section about the service."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_it_starts_the_gateway() -> None:
    command(unit()["ExecStart"].split())
    text = (ROOT / "docs" / "ec2.md").read_text()
    assert unit()["ExecStart"].split()[0].rpartition("/")[0] in text
    for path in re.findall(r"/etc/session-gateway/[\w.]+", UNIT.read_text()):
        assert path in text, path
    assert f"useradd --system --no-create-home {unit()['User']}" in text


def test_it_leaves_the_time_to_drain() -> None:
    drain = ServerSettings.model_fields["drain_seconds"].default
    assert int(unit()["TimeoutStopSec"]) > drain + 15
    assert unit()["KillMode"] == "mixed", "workers are told by their parent, and by nobody else"


def test_systemd_understands_it(tmp_path: Path) -> None:
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/opt/session-gateway/bin/session-gateway", "/bin/sh"))
    known = re.compile(r"^(#.*|\[\w+\]|[A-Z]\w+=.*|)$")
    assert all(known.match(line) for line in file.read_text().splitlines())
    program = shutil.which("systemd-analyze")
    if program is None:  # there is no systemd in most containers
        return
    done = subprocess.run([program, "verify", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
