"""docs/events.md: its function shows a conversation, that of the protocol's own document."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.documents.blocks import Document
from tests.documents.snippets import MESSAGES, NODE

CODE = Document("docs/events.md").block("js")
(CONVERSATION,) = Document("gateway/protocol/PROTOCOL.md").blocks("", "A conversation")
PROGRAM = """
import { next } from "./events.mjs";
const lines = [];
const say = (line) => lines.push(line);
let shown = { turns: {} };
for (const message of JSON.parse(process.argv[1])) shown = next(shown, message, say);
console.log(JSON.stringify({ shown, lines }));
"""


def shown(folder: Path, messages: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What it shows after these messages, and the lines that it says."""
    (folder / "events.mjs").write_text(CODE)
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", PROGRAM, json.dumps(messages)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["shown"], told["lines"]


def test_a_conversation_is_shown(tmp_path: Path) -> None:
    said = re.findall(r"^← (.*\}|.*\n(?:   .*\n)*?.*\})$", CONVERSATION, re.MULTILINE)
    messages = [json.loads(" ".join(text.split())) for text in said]
    assert messages[-1]["type"] == "session.closed"
    failed = {
        "type": "message.done",
        "event": 8,
        "id": "m3",
        "status": "failed",
        "error": {"code": "timeout", "message": "The model did not answer in time."},
    }
    state, lines = shown(tmp_path, [*messages[:-1], failed, messages[-1]])
    answers = {name: (turn["status"], turn["answer"]) for name, turn in state["turns"].items()}
    assert answers == {
        "m1": ("completed", "Hello Ada!"),
        "m2": ("completed", "Your name is Ada."),
        "m3": ("failed", ""),
    }
    assert state["newest"] == messages[-1]["event"]
    assert lines == [
        "The model did not answer in time. (timeout)",
        "This conversation is over (client).",
    ]


def test_it_takes_every_message_that_a_gateway_sends() -> None:
    known = {*re.findall(r'case "([\w.]+)"', CODE)}
    silent = {"pong", "message.duplicate", "session.updated"}
    sent = {tag for tag in MESSAGES if "event" in MESSAGES[tag].__struct_encode_fields__}
    sent -= {"event.ack"}
    assert sent | {"error", "session.resumed"} == known | silent - {"pong", "message.duplicate"}
