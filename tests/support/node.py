"""Scripts that Node runs as users' applications do, with the packages that they would install."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.timing import UNIT

VENV = Path(sys.prefix)
PACKAGES = VENV / "node_modules"
NODE = VENV / "bin" / "node"


def run(folder: Path, script: str, **variables: str) -> Any:
    """What a script prints, as JSON; it has to end by itself, without a complaint.

    Args:
        folder: Where it runs.
        script: An ES module.
        variables: Of its environment, and nothing else.
    """
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(PACKAGES)
    (folder / "app.mjs").write_text(script)
    ended = subprocess.run(
        [str(NODE), "app.mjs"],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * UNIT,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr + ended.stdout
    return json.loads(ended.stdout)
