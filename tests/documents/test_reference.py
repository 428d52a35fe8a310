"""What the documents have from the code is what the code says. `make reference` writes it."""

import pytest

from tests.documents import events, javascript_api
from tests.documents.reference import DOCS, WRITTEN
from tests.documents.tables import part, rows


@pytest.mark.parametrize("name", WRITTEN)
def test_it_is_what_the_code_says(name: str) -> None:
    text = (DOCS / name).read_text()
    assert WRITTEN[name](text) == text, "run `make reference`"


@pytest.mark.parametrize("name", [*events.STRUCTS, "errors", "closings"])
def test_nothing_is_left_without_words(name: str) -> None:
    found = rows(part((DOCS / "events.md").read_text(), name))
    for row in found:
        assert row[-1], (name, row[0])


def test_a_field_of_another_name_is_noticed() -> None:
    text = (DOCS / "events.md").read_text()
    assert text.count("| `queued` | whole number |") == 1
    other = text.replace("| `queued` | whole number |", "| `waiting` | whole number |")
    assert "| `queued` | whole number |  |" in events.written(other)


def test_all_that_the_client_exports_is_there() -> None:
    text = (DOCS / "javascript.md").read_text()
    names = javascript_api.exported()
    assert len(names) > 10
    assert all(f"\n## `{name}`\n" in text for name in names)
    for member in ("new SessionClient(url, options)", "send(body, id)", "restart(url)", "cancel"):
        assert f"\n### `{member}`\n" in text, member
