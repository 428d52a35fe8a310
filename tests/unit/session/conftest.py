"""Each script runs twice: as it is, and taken down and set up again elsewhere at every step."""

import pytest

from tests.support.script import Script


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if getattr(metafunc.module, "Script", None) is Script:
        metafunc.parametrize("moves", [False, True], ids=["stays", "moves"], indirect=True)


@pytest.fixture(autouse=True)
def moves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Script, "moves", getattr(request, "param", False))
