"""What is to be thought of a run: which cases may end otherwise than well, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.errors import CloseCode

GROUPS: Mapping[int, str] = MappingProxyType(
    {
        1: "framing",
        2: "pings and pongs",
        3: "reserved bits",
        4: "opcodes",
        5: "fragmentation",
        6: "UTF-8",
        7: "closing",
        9: "limits and performance",
        10: "automatic fragmentation",
        12: "compression, of payloads",
        13: "compression, its parameters",
    }
)
"""The suite's groups of cases; there is no 8, and no 11."""

_BEYOND_THE_LIMIT = (
    "8 and 16 MB; SageMaker takes bodies of up to 6 MB, and so does a route by default"
)
_OVERTAKEN = (
    "an error comes with a message: the connection fails at once, and not when the model has "
    "answered, as RFC 6455 permits in section 7.1.7"
)

EXPECTED: Mapping[str, tuple[int, str]] = MappingProxyType(
    dict.fromkeys(("9.1.5", "9.1.6", "9.2.5", "9.2.6"), (CloseCode.TOO_LARGE, _BEYOND_THE_LIMIT))
)
"""Cases that can't pass: with which code the gateway closes them, and why."""

MAY_BE_NON_STRICT: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"),
        _OVERTAKEN,
    )
)
"""Cases that may end in a way that the suite accepts but does not prefer, and why."""


class Verdict(StrEnum):
    """On a case."""

    OK = "OK"
    NON_STRICT = "non-strict"
    INFORMATIONAL = "informational"
    UNIMPLEMENTED = "unimplemented"
    EXPECTED = "expected"
    FAILED = "failed"


_BEHAVIOURS = {
    "OK": Verdict.OK,
    "NON-STRICT": Verdict.NON_STRICT,
    "INFORMATIONAL": Verdict.INFORMATIONAL,
    "UNIMPLEMENTED": Verdict.UNIMPLEMENTED,
}
_CLOSED_WELL = {"OK", "INFORMATIONAL"}


class Case(NamedTuple):
    """One that was run.

    Attributes:
        number: Its place: group, and those within.
        verdict: On it.
        remark: What the suite says of it, where that is not "OK".
    """

    number: tuple[int, ...]
    verdict: Verdict
    remark: str

    @property
    def name(self) -> str:
        """As the suite calls it."""
        return ".".join(map(str, self.number))


def judge(name: str, row: Mapping[str, Any]) -> Case:
    """Judge a case by what the suite's index says of it."""
    number = tuple(map(int, name.split(".")))
    behaviour, closing, code = row["behavior"], row["behaviorClose"], row["remoteCloseCode"]
    verdict = _BEHAVIOURS.get(behaviour, Verdict.FAILED)
    if name in EXPECTED:
        as_expected = behaviour == "FAILED" and code == EXPECTED[name][0]
        verdict = Verdict.EXPECTED if as_expected else Verdict.FAILED
    elif closing not in _CLOSED_WELL or (
        verdict is Verdict.NON_STRICT and name not in MAY_BE_NON_STRICT
    ):
        verdict = Verdict.FAILED
    return Case(number, verdict, f"{behaviour}, its close {closing}, with {code}")


def table(cases: Iterable[Case]) -> str:
    """How many there are of each group and verdict."""
    counts: dict[int, Counter[Verdict]] = {}
    for case in cases:
        counts.setdefault(case.number[0], Counter())[case.verdict] += 1
    rows = [(f"{group}.x {GROUPS[group]}", counts[group]) for group in sorted(counts)]
    rows.append(("all", sum(counts.values(), Counter())))
    width = max(len(title) for title, _ in rows)
    lines = [f"{'':{width}} cases " + " ".join(f"{verdict:>3}" for verdict in Verdict)]
    for title, of_group in rows:
        numbers = " ".join(
            f"{of_group[verdict] or '·':>{max(3, len(verdict))}}" for verdict in Verdict
        )
        lines.append(f"{title:{width}} {of_group.total():>5} {numbers}")
    return "\n".join(lines)


def remarks(cases: Iterable[Case]) -> str:
    """Which cases have not simply passed, and why."""
    why: dict[str, list[str]] = {}
    for case in sorted(cases):
        match case.verdict:
            case Verdict.EXPECTED:
                code, reason = EXPECTED[case.name]
                why.setdefault(f"expected, closed with {code}: {reason}", []).append(case.name)
            case Verdict.NON_STRICT:
                reason = f"non-strict: {MAY_BE_NON_STRICT[case.name]}"
                why.setdefault(reason, []).append(case.name)
            case Verdict.FAILED:
                why.setdefault(f"failed: {case.remark}", []).append(case.name)
            case Verdict.UNIMPLEMENTED:
                why.setdefault("unimplemented: messages are not compressed", [])
            case _:
                pass
    return "\n".join(
        f"{reason} ({', '.join(names)})" if names else reason for reason, names in why.items()
    )
