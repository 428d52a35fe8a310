"""docs/sizing.md: its figures are those that were measured, its settings and metrics there are."""

import json
import re

import pytest
from pydantic import BaseModel

from gateway.config import (
    AwsSettings,
    LimitSettings,
    RouteSettings,
    ServerSettings,
    StoreSettings,
)
from tests.documents.blocks import ROOT
from tests.documents.tables import rows

TEXT = (ROOT / "docs" / "sizing.md").read_text()
WORDS = " ".join(TEXT.split())
MEASURED = (ROOT / "docs" / "performance.md").read_text()
OBSERVED = (ROOT / "docs" / "observability.md").read_text()
SECTIONS: dict[str, type[BaseModel]] = {
    "aws": AwsSettings,
    "limits": LimitSettings,
    "routes.*": RouteSettings,
    "server": ServerSettings,
    "store": StoreSettings,
}


def table(section: str) -> list[list[str]]:
    """The one table of a section."""
    return rows(TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0])


@pytest.mark.parametrize("row", table("What a message costs"), ids=lambda row: row[0])
def test_a_cost_was_measured(row: list[str]) -> None:
    _, cpu, carried = row
    figures = re.findall(r"[\d.,]+", cpu)
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", MEASURED), figure
    exact = re.fullmatch(r"([\d,]+) a second", carried)
    if exact:
        assert f"| {exact[1].replace(',', '')} |" in MEASURED, carried
    else:
        (most, *rest) = [1_000_000 / float(figure) for figure in figures]
        (about,) = re.findall(r"some ([\d,]+) a second", carried)
        assert min([most * 0.9, *rest]) <= float(about.replace(",", "")) <= most


def test_the_example_adds_up() -> None:
    with_store, part = 239, 3.9
    for text in (
        f"{with_store} µs = {83 * with_store / 1000:.0f} ms",
        f"{part} µs = {25_000 * part / 1000:.0f} ms",
        f"{5000 // 60} messages and {5000 * 300 // 60:,} parts a second",
        f"are {83 * 5} turns",
        f"{-(-83 * 5 // 16)} instances",
    ):
        assert text in WORDS, text


@pytest.mark.parametrize("row", table("What to set"), ids=lambda row: row[0])
def test_a_setting_has_this_default(row: list[str]) -> None:
    section, _, key = row[0].strip("`").rpartition(".")
    default = SECTIONS[section].model_fields[key].default
    if key == "transcript_bytes":  # where the gateway keeps the conversation
        default = (
            RouteSettings.model_validate({"endpoint_name": "e", "format": "openai-chat"})
            .policy("chat", ServerSettings())
            .transcript_bytes
        )
    assert json.loads(row[1]) == default


def test_the_metrics_are_there() -> None:
    named = re.findall(r"`(session_gateway_\w+)`", TEXT)
    assert len(named) >= 5
    assert all(f"| `{name}` |" in OBSERVED for name in named)
