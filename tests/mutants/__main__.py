"""``python -m tests.mutants``: which faults in the core its tests notice, and which they do not."""

import argparse
import json
import os
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.trials import Verdict, check, measure, trials

MODULES = (
    "gateway/session/*.py",
    "gateway/guard/*.py",
    "gateway/security/*.py",
    "gateway/route.py",
    "gateway/runner.py",
    "gateway/sessions.py",
    "gateway/subscribers.py",
    "gateway/turnstile.py",
    "gateway/stores/memory.py",
    "gateway/formats/templates.py",
)
SHORT = (
    "gateway/session/keys.py",
    "gateway/session/reader.py",
)
"""Those that are tried for each change."""
TESTS = (
    "tests/unit/session",
    "tests/unit/security",
    "tests/unit/test_guard.py",
    "tests/unit/stores",
    "tests/unit/formats",
    "tests/unit/test_config.py",
    "tests/unit/test_history_settings.py",
    "tests/unit/test_runner.py",
    "tests/unit/test_running.py",
    "tests/unit/test_sessions.py",
    "tests/unit/test_subscribers.py",
    "tests/unit/test_turnstile.py",
)
ENOUGH = 0.95
"""The share of all mutants that the tests have to notice."""

Key = tuple[str, str, str, str]
"""What tells a mutant from others: its module, its scope, what was there, what is there now."""


def key_of(mutant: Mutant) -> Key:
    """See `Key`."""
    return str(mutant.path), mutant.scope, mutant.was, mutant.becomes


def explained() -> dict[Key, str]:
    """Why mutants survive of which that is known."""
    text = (Path(__file__).parent / "survivors.toml").read_text()
    return {
        (entry["module"], entry["scope"], entry["was"], becomes): entry["why"]
        for entry in tomllib.loads(text)["survivor"]
        for becomes in entry["becomes"]
    }


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, help="patterns of their paths")
    parser.add_argument("--short", action="store_true", help="only a few small modules")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    patterns = SHORT if given.short else given.modules
    paths = sorted({path for pattern in patterns for path in Path().glob(pattern)})
    os.environ.setdefault("TESTS_UNIT_SECONDS", "1")  # measured once, not by each process
    reach = measure(TESTS, paths)
    check(paths[0], reach)
    verdicts: dict[Path, list[tuple[Mutant, Verdict]]] = defaultdict(list)
    for path in paths:
        for mutant, verdict in trials(mutants_of(path), reach, given.workers):
            verdicts[path].append((mutant, verdict))
        say(f"{path}: {len(verdicts[path])} mutants")
    return report(verdicts, explained())


def report(verdicts: Mapping[Path, list[tuple[Mutant, Verdict]]], known: Mapping[Key, str]) -> int:
    """Print what has come of it; returns the exit code."""
    survivors = [
        mutant for tried in verdicts.values() for mutant, verdict in tried if verdict == "survived"
    ]
    unexplained = [mutant for mutant in survivors if key_of(mutant) not in known]
    stale = {key for key in known if Path(key[0]) in verdicts} - {*map(key_of, survivors)}
    for mutant in unexplained:
        say(f"\n[[survivor]]  # line {mutant.lines.start}")
        say(f"module = {json.dumps(str(mutant.path))}\nscope = {json.dumps(mutant.scope)}")
        say(f"was = {json.dumps(mutant.was)}\nbecomes = [{json.dumps(mutant.becomes)}]")
    say("\n| module | mutants | killed | timed out | survived | score |")
    say("| --- | --- | --- | --- | --- | --- |")
    tried = [verdict for trials in verdicts.values() for _, verdict in trials]
    rows = {str(path): [verdict for _, verdict in trials] for path, trials in verdicts.items()}
    for name, row in {**rows, "all": tried}.items():
        numbers = " | ".join(str(row.count(kind)) for kind in ("killed", "timeout", "survived"))
        say(f"| {name} | {len(row)} | {numbers} | {score(row):.1%} |")
    for key in sorted(stale):
        say(f"survivors.toml explains what does not survive: {key}")
    if unexplained:
        say(f"{len(unexplained)} of {len(survivors)} survivors are not explained")
    if score(tried) < ENOUGH:
        say(f"less than {ENOUGH:.0%} of the mutants were noticed")
    return int(bool(unexplained or stale or score(tried) < ENOUGH))


def score(verdicts: list[Verdict]) -> float:
    """The share of mutants that were noticed; those that no test could notice count too."""
    return 1 - verdicts.count("survived") / len(verdicts) if verdicts else 1.0


def say(text: str) -> None:
    """One line, at once: a whole run takes a while."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
