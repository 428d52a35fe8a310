"""Where log lines go."""

import logging
from collections.abc import Iterator
from types import ModuleType

import pytest
import structlog

from gateway.security import door, keysets, reloading


@pytest.fixture(autouse=True)
def to_logging() -> Iterator[None]:
    """Lines go to `logging`, as in an application that embeds the gateway."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


@pytest.mark.parametrize("module", [door, keysets, reloading], ids=lambda each: each.__name__)
def test_all_go_to_one_logger(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.security"):
        module.log.info("hello")
    assert [(each.name, each.getMessage()) for each in caplog.records] == [
        ("gateway.security", "hello")
    ]
