"""One attack, as a process of its own.

``python -m tests.hostile.attacker NAME URL SCALE SECONDS KEY``, where there may be no key. It says
when it is ready, begins when it is told, and says what came of it.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress

import uvloop

from tests.hostile.attacks import ATTACKS
from tests.hostile.field import Field
from tests.hostile.peer import Gone

GRACE_SECONDS = 20
"""What an attack may take beside its own time, to come through a gateway that is slow."""


async def main(name: str, url: str, scale: str, seconds: str, key: str) -> None:
    """Attack."""
    field = Field(url, scale=float(scale), seconds=float(seconds), key=key)
    with suppress(Gone, TimeoutError):
        async with asyncio.timeout(float(seconds) + GRACE_SECONDS):
            await ATTACKS[name](field)
    print(json.dumps({"answers": field.answers(), "sent": field.sent}), flush=True)  # noqa: T201
    field.leave()


if __name__ == "__main__":
    os.nice(10)  # the others on this machine come first: it is their time that is measured
    uvloop.run(main(*sys.argv[1:]))
