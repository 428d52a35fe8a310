"""A short round of every attack; ``make hostile`` does them in full.

What is judged is how much the gateway works while another's turn is under way, not how long that
takes. On a machine that is busy enough, the other sees more of that work go by; so an attack counts
as felt when it was each time.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.trial import SHORT, Attacker, Trial, attempt, upstream

TIMES = 3


@pytest.fixture(scope="module")
def platform() -> Iterator[str]:
    with upstream() as address:
        yield address


@pytest.mark.parametrize(
    "attacker",
    [
        Attacker.ANYBODY,
        pytest.param(Attacker.KEY, marks=pytest.mark.long),
        pytest.param(Attacker.NOBODY, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("name", ATTACKS)
async def test_no_neighbour_feels_an_attack(
    name: str, attacker: Attacker, platform: str, tmp_path: Path
) -> None:
    how = replace(SHORT, attacker=attacker)
    felt: list[Trial] = []
    while len(felt) < TIMES:
        trial = await attempt(name, platform, tmp_path, how)
        if not trial.failures(of_work=True):
            return
        felt.append(trial)
    raise AssertionError([trial.failures(of_work=True) for trial in felt], felt[-1])
