"""Every attack, one after the other, as a table: ``python -m tests.hostile [--short] [NAME …]``."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.hostile.attacks import ATTACKS
from tests.hostile.trial import SHORT, WHOLE, Round, Trial, attempt, upstream

HEAD = (
    "| attack | slowest turn before, ms | during | the gateway's work in it | memory before, MB "
    "| peak | after | its connections | verdict |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --- | --- |"
)


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
    print(HEAD, flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder, upstream() as platform:
        for name in names:
            trial = await attempt(name, platform, Path(folder), how)
            felt += bool(trial.failures())
            print(row(trial), flush=True)  # noqa: T201
    return felt


if __name__ == "__main__":
    given = sys.argv[1:]
    how = SHORT if "--short" in given else WHOLE
    chosen = [name for name in given if name != "--short"] or [*ATTACKS]
    sys.exit(min(asyncio.run(main(chosen, how)), 1))
