"""Good clients beside others, as tables: ``python -m tests.load [--short] [NAME …]``."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.load.crowd import Turn
from tests.load.trial import (
    ILL,
    SHORT,
    WHOLE,
    Load,
    Size,
    Trial,
    as_text,
    errors,
    footprint,
    left,
    logged_errors,
    percentile,
    scene,
    settled,
    work,
)

HEAD = (
    "| beside | p50 quiet, ms | ratio | p99 quiet, ms (rounds) | beside them | ratio "
    "| the gateway's work in it, quiet | beside them "
    "| others' turns | failed | their connections | verdict |\n"
    "| --- | --: | --: | --- | --- | --: | --: | --: | --: | --- | --- | --- |"
)
SECOND = (
    "| a second principal, whose endpoint is | turns | failed | answered again after, s |\n"
    "| --- | --: | --- | --- |"
)
SHARES = (
    "| at most 4 turns at the model | turns | answered | p50, ms | p99, ms | failed |\n"
    "| --- | --: | --: | --: | --: | --- |"
)
HELD = "| | memory, MB | open files | the gateway's own count |\n| --- | --: | --: | --- |"
NAMES = ("greedy", *ILL, "shares")


def say(text: str) -> None:
    """Print it at once."""
    print(text, flush=True)  # noqa: T201


def milliseconds(seconds: float) -> str:
    """As in the tables."""
    return f"{seconds * 1000:.1f}"


def row(trial: Trial) -> str:
    """A trial as a line of the table."""
    p99s = (
        " ".join(milliseconds(percentile(turns, 0.99)) for turns in rounds)
        for rounds in (trial.quiet, trial.loaded)
    )
    cells = (
        trial.name,
        milliseconds(percentile([turn for turns in trial.quiet for turn in turns], 0.5)),
        f"{trial.ratio(0.5):.2f}",
        next(p99s),
        next(p99s),
        f"{trial.ratio(0.99):.2f}",
        milliseconds(work(trial.quiet)),
        milliseconds(work(trial.loaded)),
        f"{len(trial.others)}",
        as_text(errors(trial.others)),
        as_text(trial.closed),
        "; ".join(trial.failures()) or "held",
    )
    return f"| {' | '.join(cells)} |"


def share(who: str, turns: list[Turn]) -> str:
    """A principal as a line of the table of shares."""
    answered = sum(turn.seconds is not None and turn.code is None for turn in turns)
    times = (milliseconds(percentile(turns, part)) for part in (0.5, 0.99))
    return f"| {who} | {len(turns)} | {answered} | {' | '.join(times)} | {as_text(errors(turns))} |"


async def main(names: list[str], size: Size) -> int:
    """Print the tables; returns how much was not as it is to be."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        async with scene(size, Path(folder)) as stage:
            before = footprint(stage.gateway)
            load = Load(stage)
            await load.begin()
            full = footprint(stage.gateway)
            say(f"{size.idle} idle and {size.busy} busy connections\n\n{HEAD}")
            ill: list[tuple[str, Trial]] = []
            for name in names:
                if name == "shares":
                    continue
                trial = await (load.greedy() if name == "greedy" else load.ill(name))
                failures += trial.failures()
                say(row(trial))
                if name in ILL:
                    ill.append((name, trial))
            if ill:
                say(f"\n{SECOND}")
            for name, trial in ill:
                after = ", ".join(f"{seconds:.2f}" for seconds in trial.recovered)
                failed = as_text(errors(trial.second))
                say(f"| {name} | {len(trial.second)} | {failed} | {after} |")
            if "shares" in names:
                theirs, its = await load.shares()
                say(f"\n{SHARES}")
                say(share(f"one principal with {size.greedy_sessions} sessions", theirs))
                say(share("one with a single session", its))
            others_gone = await settled(stage.gateway, full)
            await load.end()
            after_all = await settled(stage.gateway, before)
            await load.begin()
            await load.end()
            once_more = await settled(stage.gateway, before)
            say(f"\n{HELD}")
            for when, taken in (
                ("before", before),
                ("connected", full),
                ("the others have gone", others_gone),
                ("all have gone", after_all),
                ("have come and gone once more", once_more),
            ):
                say(f"| {when} | {taken.memory / 1e6:.0f} | {taken.sockets} | {taken.held} |")
            remains = [
                *left(full, others_gone, memory=True),
                *left(before, after_all),
                *left(after_all, once_more, memory=True),
            ]
            logged = logged_errors(Path(folder))
    for failure in (*remains, *logged):
        say(f"- {failure}")
    return len(failures) + len(remains) + len(logged)


if __name__ == "__main__":
    given = sys.argv[1:]
    size = SHORT if "--short" in given else WHOLE
    chosen = [name for name in given if name != "--short"] or [*NAMES]
    sys.exit(min(asyncio.run(main(chosen, size)), 1))
