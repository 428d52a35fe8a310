"""Makes, once, what the services share and nobody else may know, in the folder that is named."""

import os
import secrets
import sys
from base64 import b64encode
from pathlib import Path

USER = 10001
"""Of the services, as compose.yaml has it."""


def prepare(folder: Path) -> None:
    """Make each file that is not there; those that are stay as they are."""
    password = secrets.token_urlsafe(32)
    for texts in (
        {"store-password": password, "valkey.conf": f"requirepass {password}\n"},
        {"encryption.keys": b64encode(secrets.token_bytes(32)).decode() + "\n"},
        {"keys.toml": ""},  # of those who may come in; nobody, until there is a key
    ):
        if not all((folder / name).exists() for name in texts):
            for name, text in texts.items():
                write(folder / name, text)
    os.chown(folder, -1, USER)
    folder.chmod(0o770)  # `key add` puts another file in the place of keys.toml


def write(path: Path, text: str) -> None:
    """Write a file that its user alone can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.chown(path, USER, USER)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
