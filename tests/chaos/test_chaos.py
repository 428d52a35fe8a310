"""A short share of the chaos. What the machine is fast enough for is not judged."""

from pathlib import Path

import pytest

from tests.chaos import death, rolling
from tests.chaos.faults import USUAL
from tests.chaos.trial import Plan, chaos


def quiet(_line: str) -> None:
    """Say nothing: what is wrong is said in the end."""


@pytest.mark.long
async def test_no_promise_is_broken(tmp_path: Path) -> None:
    plan = Plan(seed=1, seconds=20, clients=40, kinds=USUAL)
    found = await chaos(plan, tmp_path / "chaos", quiet)
    assert found.verdict.broken == []


@pytest.mark.long
async def test_nothing_fails_in_a_rolling_restart(tmp_path: Path) -> None:
    plan = Plan(seed=1, seconds=0, clients=40, kinds=(), steady=True)
    found, _, crowd = await rolling.restart(plan, tmp_path / "chaos", quiet)
    assert rolling.judged(found, crowd) == []


@pytest.mark.long
async def test_all_come_back_after_a_death(tmp_path: Path) -> None:
    found = await death.die(200, 2, tmp_path / "death")
    assert len(found.seconds) == 200
    assert found.wrong == []
