"""Every fenced block of every document is run or read by the program that it is for."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from tests.documents.blocks import ROOT, Block, Document
from tests.documents.reference import WRITTEN
from tests.documents.snippets import KINDS

DOCUMENTS = [
    *(file.name for file in sorted(ROOT.glob("*.md"))),
    "gateway/protocol/PROTOCOL.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
]
BLOCKS = [(name, block) for name in DOCUMENTS for block in Document(name).all]

SHOWN: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("README.md", "How it works"): "a drawing",
        ("docs/tutorial.md", "*"): "what commands print: tests/integration/test_tutorial.py",
        ("docs/troubleshooting.md", "*"): "what the gateway says, which its own test looks for",
        ("docs/retries.md", "A turn is not a request"): "what a person and a model say",
        ("docs/operations.md", "The log"): "a line of the log, shortened",
        ("docs/sessions.md", "How a session works inside"): "a drawing",
    }
)
"""Blocks of text that no program takes, by document and section, and why they are as they are."""

RUN: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("docs/http.md", "Sessions over HTTP"): "tests/integration/test_http_document.py",
        ("docs/clients.md", "React"): "tests/packaging/test_npm.py",
    }
)
"""Blocks that a test runs as they are, and which say more than commands."""


def named(name: str, block: Block) -> str:
    return f"{name}:{block.line}"


@pytest.mark.parametrize(
    ("name", "block"), BLOCKS, ids=[f"{name}-{block.line}" for name, block in BLOCKS]
)
def test_a_block_is_what_it_seems(name: str, block: Block) -> None:
    if name.removeprefix("docs/") in WRITTEN:
        return  # from the code, which a test holds it to
    if (name, block.section) in SHOWN or (block.kind == "text" and (name, "*") in SHOWN):
        return
    if (name, block.section) in RUN:
        return
    assert block.kind in KINDS, f"{named(name, block)}: no test reads {block.kind or 'plain'} text"
    KINDS[block.kind](block.text)


def test_the_exceptions_are_there() -> None:
    sections = {(name, block.section) for name, block in BLOCKS}
    for name, section in (*SHOWN, *RUN):
        assert section == "*" or (name, section) in sections, (name, section)
    assert all((ROOT / test).exists() for test in RUN.values())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("toml", "[routes.chat]\nformat = 'nothing'\n"),
        ("toml", "[server]\nprot = 8080\n"),
        ("toml", "[ada]\nsha256 = 'x'\nconnections = 'many'\n"),
        ("python", "from gateway.client import Nothing\n"),
        ("python", "print(\n"),
        ("python", "return await\n"),
        ("js", "const a = ;\n"),
        ("json", '{"type": "message.send", "words": "hello"}'),
        ("json", '{"type": }'),
        ("yaml", "a: [b\n"),
        ("nginx", "location / { proxy_passs http://session_gateway; }"),
        ("caddy", "chat.example.com {\n\treverse_prox 127.0.0.1:8080\n}\n"),
        ("dockerfile", "FORM python:3.11\n"),
        ("sh", "session-gateway serve --prot 8080\n"),
        ("sh", "session-gateway chat one two\n"),
        ("sh", "session-gateway sevre\n"),
        ("sh", "sudo -u ada /opt/session-gateway/bin/session-gateway check --file x\n"),
        ("sh", "sudo systemclt daemon-reload\n"),
        ("sh", "cd x && session-gateway local --continer http://127.0.0.1:1\n"),
        ("sh", "make tset\n"),
        ("sh", "curl --data '{\n}' http://x  # it's\nmake tset\n"),
        ("console", "$ make tset\nmake: no rule\n"),
        ("sh", "aws sagemaker delete-endpoint --endpoint my-endpoint\n"),
        ("sh", "aws sagemaker remove-endpoint --endpoint-name my-endpoint\n"),
        ("sh", "if true; then\n"),
        ("", '→ {"type": "session.open", "key": "…"}\n'),
        ("", "→ hello\n"),
    ],
)
def test_a_mistake_is_noticed(kind: str, text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever its program raises
        KINDS[kind](text)
