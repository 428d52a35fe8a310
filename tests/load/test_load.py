"""A short round of the load, of which nothing is judged that depends on how fast the machine is."""

from pathlib import Path

import pytest

from tests.load.trial import (
    ILL,
    SHORT,
    Load,
    errors,
    footprint,
    left,
    logged_errors,
    scene,
    settled,
)

GREEDY, SICK = {"rate_limited"}, {"throttled", "unavailable", "rate_limited", "unanswered"}


@pytest.mark.long
async def test_good_clients_are_answered_and_nothing_is_left(tmp_path: Path) -> None:
    async with scene(SHORT, tmp_path) as stage:
        before = footprint(stage.gateway)
        load = Load(stage)
        await load.begin()
        greedy = await load.greedy()
        assert not greedy.failures(timed=False)
        assert errors(greedy.others).keys() == GREEDY
        for how in ILL:
            trial = await load.ill(how)
            assert not trial.failures(timed=False)
            assert errors(trial.others).keys() <= SICK
        await load.end()
        assert not left(before, await settled(stage.gateway, before), memory=True)
    assert not logged_errors(tmp_path)


@pytest.mark.long
async def test_the_gateway_says_what_it_holds(tmp_path: Path) -> None:
    async with scene(SHORT, tmp_path) as stage:
        before = footprint(stage.gateway)
        load = Load(stage)
        await load.begin()
        during = footprint(stage.gateway)
        clients = SHORT.idle + SHORT.busy + 5
        assert during.held.sessions == during.held.connections == clients
        assert during.sockets >= before.sockets + clients
        assert left(before, during)
