"""What a replica knows of the store that it keeps sessions in."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.health import Health
from gateway.session.storage import StoreUnavailable


@pytest.mark.parametrize(
    ("error", "why"),
    [(StoreUnavailable("it answers OOM"), "it answers OOM"), (TimeoutError(), "TimeoutError")],
)
async def test_why_a_store_does_not_answer_is_logged_once_until_it_does(
    error: Exception, why: str
) -> None:
    health = Health(asyncio.get_running_loop().time)
    away = {"event": "the store does not answer", "log_level": "error", "why": why}
    back = {"event": "the store answers again", "log_level": "warning"}
    with capture_logs() as logs:
        for _ in range(2):
            for _ in range(3):
                health.failed(error)
            assert not health.is_up
            for _ in range(3):
                health.answered()
            assert health.is_up
    assert logs == [away, back] * 2


async def test_a_call_that_the_store_does_not_answer_says_why() -> None:
    health = Health(asyncio.get_running_loop().time)
    with capture_logs() as logs, pytest.raises(StoreUnavailable), health.call():
        raise StoreUnavailable("it answers NOPERM")
    assert [line["why"] for line in logs] == ["it answers NOPERM"]
    assert not health.is_up
    async with asyncio.timeout(1):
        await health.settled()
