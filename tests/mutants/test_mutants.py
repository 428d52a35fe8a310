"""That faults are put where they belong, and that what no test notices is told."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import Key, explained, report
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.trials import Reach, Verdict

SOURCE = '''\
"""A module."""

import math
from typing import TypeVar

T = TypeVar("T")
Sizes = tuple[int, "str"]

LIMIT = 3


class Counter(list, metaclass=type):
    """Counts."""

    __slots__ = ("count",)

    @property
    def full(self) -> "bool":
        """Whether it is."""
        assert len(self) >= 0
        if self.count >= LIMIT:
            self.close()
        return True
'''


def faults(path: Path) -> list[tuple[str, str, str, range]]:
    path.write_text(SOURCE)
    return [(m.scope, m.was, m.becomes, m.lines) for m in mutants_of(path)]


def test_what_says_something_of_behaviour_is_changed_wherever_it_is(tmp_path: Path) -> None:
    inner, condition = "Counter.full", "if self.count >= LIMIT:"
    assert faults(tmp_path / "m.py") == [
        ("", "LIMIT = 3", "LIMIT = None", range(9, 10)),
        ("", "LIMIT = 3", "LIMIT = 4", range(9, 10)),
        (inner, condition, "if False:", range(21, 22)),
        (inner, condition, "if True:", range(21, 22)),
        (inner, condition, "if self.count > LIMIT:", range(21, 22)),
        (inner, "self.close()", "pass", range(22, 23)),
        (inner, "return True", "return False", range(23, 24)),
    ]


def test_a_mutant_is_tried_by_the_tests_that_reach_it() -> None:
    reach = Reach(seconds={"a": 1.0, "b": 1.0}, tests={"m.py": {3: ["b"], 5: []}})
    found = [
        reach.of(Mutant(Path("m.py"), "", lines, "", "", ""))
        for lines in (range(3, 6), range(5, 6))
    ]
    assert found == [{"b"}, {"a", "b"}], "all where it is importing that does"


@pytest.mark.parametrize(
    ("killed", "survived", "known", "code", "says"),
    [
        (20, [], [], 0, "100.0%"),
        (19, ["x"], ["x"], 0, "95.0%"),
        (19, ["x"], [], 1, 'becomes = ["x"]'),
        (20, [], ["x"], 1, "explains what does not survive"),
        (18, ["x", "y"], ["x", "y"], 1, "less than 95%"),
    ],
)
def test_what_is_reported(
    killed: int,
    survived: list[str],
    known: list[str],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = Path("m.py")

    def tried(becomes: str, verdict: Verdict) -> tuple[Mutant, Verdict]:
        return Mutant(path, "f", range(1, 2), "was", becomes, ""), verdict

    verdicts = [tried(f"{number}", "killed") for number in range(killed)]
    verdicts += [tried(becomes, "survived") for becomes in survived]
    why: dict[Key, str] = {("m.py", "f", "was", becomes): "." for becomes in known}
    elsewhere: Key = ("other.py", "f", "was", "x")
    assert report({path: verdicts}, {**why, elsewhere: "It was not tried."}) == code
    assert says in capsys.readouterr().out


def test_each_explanation_says_why() -> None:
    assert all(why.endswith(".") for why in explained().values())
