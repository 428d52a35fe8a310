"""Shell completion, as shells ask for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.completion import INSTALL, PROGRAM, VARIABLE

ROUTES = "[routes.chat]\nendpoint_name = 'e'\n[routes.data]\n[routes.charts]\n"
COMMAND = Path(sys.executable).parent / PROGRAM


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(ROUTES)


def completed(line: str, shell: str = "bash") -> list[str]:
    """What a shell is told where the cursor is at the end of that line."""
    words = line.split(" ")
    environment = {VARIABLE: f"{shell}_complete", "COMP_WORDS": line}
    environment["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(words) - 1)
    runner = CliRunner(env=environment)
    return runner.invoke(main, [], prog_name=PROGRAM).output.split()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("che", ["plain,check"]),
        ("check --li", ["plain,--live"]),
        ("check --route ", ["plain,chat", "plain,data", "plain,charts"]),
        ("check --route ch", ["plain,chat", "plain,charts"]),
        ("check --config other.toml --route ", ["plain,games"]),
        ("check --config none.toml --route ", []),
        ("check --config broken.toml --route ", []),
        ("check --config gat", ["file,gat"]),
        ("key add ada --routes chat,ch", ["plain,chat,charts"]),
        ("key add ada --file ke", ["file,ke"]),
        ("chat --route da", ["plain,data"]),
        ("init --container v", ["plain,vllm"]),
        ("completion ", ["plain,bash", "plain,zsh", "plain,fish"]),
    ],
)
def test_what_is_completed(line: str, says: list[str]) -> None:
    Path("other.toml").write_text("[routes.games]\n")
    Path("broken.toml").write_text("[routes\n")
    assert completed(f"{PROGRAM} {line}") == says


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_ask_in_their_own_way(shell: str) -> None:
    assert "chat" in "\n".join(completed(f"{PROGRAM} check --route cha", shell))


@pytest.mark.parametrize("shell", INSTALL)
def test_the_script_is_printed(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name=PROGRAM)
    assert result.exit_code == 0
    assert VARIABLE in result.stdout
    assert f"{shell}_complete" in result.stdout
    assert result.stderr == "", "it is eval's"
    again = CliRunner(env={"SHELL": f"/usr/bin/{shell}"}).invoke(main, ["completion"])
    assert again.stdout == result.stdout


def test_a_shell_that_is_not_known() -> None:
    result = CliRunner(env={"SHELL": "/bin/dash"}).invoke(main, ["completion"])
    assert result.exit_code == 2
    assert "Which shell? One of bash, zsh, fish." in result.stderr


def test_bash_itself() -> None:
    script = (
        f'eval "$({PROGRAM} completion bash)"\n'
        f"COMP_WORDS=({PROGRAM} check --route cha) COMP_CWORD=3\n"
        f'"$(complete -p {PROGRAM} | sed "s/.*-F \\([^ ]*\\) .*/\\1/")" {PROGRAM}\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout.split(), done.stderr) == (["chat", "charts"], "")
