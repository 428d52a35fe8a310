"""Every attack, one after the other, as a table for each kind of attacker.

``python -m tests.hostile [--short] [--anybody] [--key] [--nobody] [NAME …]``; see `Attacker`.
"""

import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.hostile.attacks import ATTACKS
from tests.hostile.trial import SHORT, WHOLE, Attacker, Round, Trial, attempt, upstream

HEAD = (
    "| attack | slowest turn before, ms | during | the gateway's work in it | memory before, MB "
    "| peak | after | its connections | verdict |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --- | --- |"
)

TITLES = {
    Attacker.ANYBODY: "Without `[auth]`:",
    Attacker.KEY: "With `[auth.keys]`, by somebody with a key:",
    Attacker.NOBODY: "With `[auth.keys]`, by somebody without:",
}


def row(trial: Trial) -> str:
    """A trial as a line of the table."""
    what = (ATTACKS[trial.name].__doc__ or "").strip()
    times = (trial.quiet.slowest, trial.during.slowest, trial.during.work)
    answers = ", ".join(f"{count} of {answer}" for answer, count in sorted(trial.answers.items()))
    cells = (
        f"{what} (`{trial.name}`)",
        *(f"{seconds * 1000:,.0f}" for seconds in times),
        *(f"{size / 1e6:,.0f}" for size in (trial.before, trial.peak, trial.after)),
        answers,
        "; ".join(trial.failures()) or "held",
    )
    return f"| {' | '.join(cells)} |"


async def main(names: list[str], how: Round) -> int:
    """Print the table; returns how many attacks were felt."""
    felt = 0
    print(f"\n{TITLES[how.attacker]}\n\n{HEAD}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder, upstream() as platform:
        for name in names:
            trial = await attempt(name, platform, Path(folder), how)
            felt += bool(trial.failures())
            print(row(trial), flush=True)  # noqa: T201
    return felt


if __name__ == "__main__":
    given = sys.argv[1:]
    how = SHORT if "--short" in given else WHOLE
    attackers = [each for each in Attacker if f"--{each}" in given] or [*Attacker]
    chosen = [name for name in given if not name.startswith("--")] or [*ATTACKS]
    felt = sum(asyncio.run(main(chosen, replace(how, attacker=each))) for each in attackers)
    sys.exit(min(felt, 1))
