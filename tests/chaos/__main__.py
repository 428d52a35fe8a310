"""Sessions shared by real processes while they die: ``python -m tests.chaos [--minutes N]``.

``--rolling`` tells of a rolling restart, ``--death 10000`` of so many sessions that are resumed
after a replica's death. What is left when something is wrong is in ``artifacts/chaos``.
"""

import argparse
import sys
import time
from pathlib import Path

import uvloop

from tests.chaos import death, rolling
from tests.chaos.faults import KINDS, USUAL
from tests.chaos.trial import ARTIFACTS, Plan, chaos, table, tidy


def say(line: str) -> None:
    """Print it now."""
    print(line, flush=True)  # noqa: T201


def kinds_of(text: str) -> tuple[str, ...]:
    """Faults, by their names with commas between them."""
    kinds = tuple(text.split(","))
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise argparse.ArgumentTypeError(f"there are {', '.join(KINDS)}")
    return kinds


async def main(chosen: argparse.Namespace) -> int:
    """Do what is asked for; returns how much is wrong."""
    folder = Path(chosen.folder)
    plan = Plan(
        seed=chosen.seed,
        seconds=chosen.minutes * 60,
        clients=chosen.clients,
        kinds=chosen.faults,
    )
    if chosen.death:
        return await death.main(chosen.death, chosen.lease, folder, say)
    if chosen.rolling:
        broken = await rolling.main(plan, folder, say)
    else:
        say(f"seed {plan.seed}: {plan.clients} clients, {', '.join(plan.kinds)}")
        found = await chaos(plan, folder, say)
        for line in table(found):
            say(line)
        broken = found.verdict.broken
    for line in broken[:50]:
        say(f"- {line[:1000]}")
    kept = tidy(folder, broken)
    if broken:
        (folder / "broken").write_text("\n".join([f"seed {plan.seed}", *broken, ""]))
        say(f"seed {plan.seed}; logs and the histories of {', '.join(kept)} are in {folder}")
    return len(broken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", type=kinds_of, default=USUAL, metavar="KIND,…")
    parser.add_argument("--folder", default=str(ARTIFACTS))
    parser.add_argument("--rolling", action="store_true")
    parser.add_argument("--death", type=int, default=0, metavar="SESSIONS")
    parser.add_argument("--lease", type=float, default=5, help="of --death, in seconds")
    sys.exit(min(uvloop.run(main(parser.parse_args())), 1))
