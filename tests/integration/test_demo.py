"""The demonstration: both models answer through the gateway, and Ctrl-C stops all of it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.client import client
from tests.support.processes import Process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_the_language_model_and_the_builtin_one(how: signal.Signals) -> None:
    process = Process([sys.executable, "-m", "gateway", "demo", "--port", "0"])
    try:
        assert "Loading SmolLM2" in process.output
        url = process.websocket
        async with client(url) as chat, client(url, route="builtin") as other:
            assert (await chat.open())["route"] == "language"
            done = await chat.ask("What is the capital of France?")
            assert done["status"] == "completed"
            assert len(done["text"]) > 10
            assert "turn=1" in done["custom_attributes"]
            assert "turn=2" in (await chat.ask("And of Italy?"))["custom_attributes"]
            await other.open()
            assert "Turn 1" in (await other.ask("hi"))["text"]
            await chat.send("message.send", id="last", text="Tell me a long story.")
            await chat.until("message.accepted", id="last")
            code = process.stop(how)
            assert (await chat.until("message.done"))["status"] in {"completed", "failed"}
        assert code == 0
        assert "Traceback" not in process.output
    finally:
        process.stop()


def test_it_falls_back_to_the_builtin_model_and_says_so(tmp_path: Path) -> None:
    """As where the packages are not installed: a module of that name hides them."""
    hiding = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'xllamacpp' else find(name, *a)\n"
        "from gateway.cli import main; main(['demo', '--port', '0'])"
    )
    process = Process([sys.executable, "-c", hiding], cwd=tmp_path)
    assert process.stop() == 0
    assert "Only the built-in model is here" in process.output
    assert "pip install" in process.output


def test_a_model_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"nothing of the kind")
    command = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--model", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "broken.gguf" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
