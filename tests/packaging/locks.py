"""What the lock files hold."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, list[Requirement]]:
    """What a lock file holds by package, which may have one version for some machines each."""
    found: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        if entry.startswith("#"):
            continue
        text, *hashes = entry.replace("\\\n", "").split("--hash=")
        assert hashes, f"{text} has no hash"
        assert all(value.startswith("sha256:") for value in hashes)
        pin = Requirement(text.strip())
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), text
        found.setdefault(canonical(pin.name), []).append(pin)
    return found


def version(pin: Requirement) -> str:
    """The one that it has."""
    (specifier,) = pin.specifier
    return specifier.version
