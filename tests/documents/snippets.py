"""Whether a fenced block of a document is what it seems, by the program that would take it."""

import ast
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import botocore.session
import click
import msgspec
import yaml
from botocore import xform_name

from gateway.cli import main
from gateway.config import Settings
from gateway.protocol import messages as wire
from gateway.security.keys import Entry

ROOT = Path(__file__).parents[2]
NODE = str(Path(sys.executable).with_name("node"))
PROGRAMS = frozenset(
    {"apt-get", "cat", "cd", "curl", "docker", "echo", "export", "helm", "install", "kubectl"}
    | {"mkdir", "npm", "openssl", "pip", "python", "python3", "systemctl", "unset", "useradd"}
    | {"uvicorn", "."}
)
"""Programs of others, whose options are not looked at."""
MESSAGES: Mapping[str, Any] = MappingProxyType(
    {
        message.__struct_config__.tag: message
        for message in (*wire.ClientMessage.__args__, *wire.ServerMessage.__args__)
    }
)
ELLIPSIS = re.compile(r",? ?…(?=\s*[}\]])")
"""What stands for further fields."""


def configuration(text: str) -> Settings | dict[str, Entry]:
    """A ``gateway.toml``, or a part of one; or a file of keys.

    Raises:
        ValueError: It is neither.
    """
    said = tomllib.loads(text)
    if said and all(isinstance(value, dict) and "sha256" in value for value in said.values()):
        return msgspec.convert(said, dict[str, Entry])
    routes = said.setdefault("routes", {})
    for route in [*routes.values()] or [routes.setdefault("chat", {})]:
        route.setdefault("endpoint_name", "my-endpoint")
    return Settings.model_validate(said)


def toml(text: str) -> None:
    """See `configuration`."""
    configuration(text)


def python(text: str) -> None:
    """Code that compiles, and imports what there is of this project."""
    code = textwrap.dedent(text)
    if re.search(r"^\s*(return|yield)\b", code, re.MULTILINE) and "def " not in code:
        code = "async def part():\n" + textwrap.indent(code, "    ")
    tree = compile(code, "<document>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    compile(tree, "<document>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gateway":
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def javascript(text: str) -> None:
    """A module that Node can read."""
    _read_by(NODE, "--check", text=text, suffix=".mjs")


def from_json(text: str) -> None:
    """JSON, and of the protocol where it has a message's type."""
    value = json.loads(ELLIPSIS.sub("", text))
    if isinstance(value, dict) and value.get("type") in MESSAGES:
        message(value)


def message(value: dict[str, Any]) -> None:
    """A message of the protocol, whose values may be shortened and whose fields may be left out."""
    of = MESSAGES[value["type"]]
    known = {*of.__struct_encode_fields__, "type"}
    assert value.keys() <= known, f"{value['type']} has no {value.keys() - known}"


def from_yaml(text: str) -> None:
    """YAML."""
    assert isinstance(yaml.safe_load(text), dict)


def nginx(text: str) -> None:
    """Locations of a server."""
    program = shutil.which("nginx", path=f"{os.defpath}:/usr/sbin")
    assert program, "nginx is needed; `make proxies` installs it"
    around = "upstream session_gateway { server 127.0.0.1:8080; } server { listen 127.0.0.1:1;"
    with tempfile.TemporaryDirectory() as folder:
        config = f"pid {folder}/pid; error_log stderr; events {{}} http {{ {around} {text} }} }}"
        _read_by(program, "-t", "-p", folder, "-c", text=config, suffix=".conf")


def caddy(text: str) -> None:
    """A Caddyfile."""
    program = shutil.which("caddy")
    assert program, "caddy is needed; `make proxies` installs it"
    _read_by(program, "adapt", "--adapter", "caddyfile", "--config", text=text, suffix=".caddy")


def dockerfile(text: str) -> None:
    """Instructions that there are."""
    words = {line.split()[0] for line in text.replace("\\\n", " ").splitlines() if line.strip()}
    assert words <= {"FROM", "RUN", "COPY", "ENV", "EXPOSE", "ENTRYPOINT", "USER", "CMD"}, words


def conversation(text: str) -> None:
    """Lines of a conversation: messages with an arrow before them, or server-sent events."""
    parts = re.split(r"^(?:[→←]|data:) ?", text, flags=re.MULTILINE)[1:]
    assert parts, "nothing is said"
    for part in parts:
        shown = part[: part.rindex("}") + 1]
        value = json.loads(ELLIPSIS.sub("", " ".join(shown.split())))
        message(value)


def shell(text: str) -> None:
    """Commands: those of this project are known with their options, others by their names."""
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in commands(text):
        command(words)


def console(text: str) -> None:
    """Commands with a prompt before them, and what they print."""
    prompts = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    assert prompts, "no command"
    shell("\n".join(prompts))


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a script without loops, each as its words."""
    line = ""
    for more in text.replace("\\\n", " ").splitlines():
        line += more
        try:
            tokens = split(line)
        except ValueError:  # a quotation goes on in the next line
            line += "\n"
            continue
        line = ""
        words: list[str] = []
        for token in [*tokens, ";"]:
            if not set(token) <= set("|&;"):
                words.append(token)
                continue
            while words and re.match(r"\w+=", words[0]):  # variables of its environment
                words.pop(0)
            if words:
                yield list(itertools.takewhile(lambda word: word[0] not in "<>", words))
            words = []


def split(line: str) -> list[str]:
    """The words of a line, and what stands between commands.

    Raises:
        ValueError: A quotation does not end.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    return list(lexer)


def command(words: list[str]) -> None:
    """One command."""
    name, *arguments = words
    match name.removeprefix("/opt/session-gateway/bin/"):
        case "sudo":
            command(arguments[2:] if arguments[0] == "-u" else arguments)
        case "session-gateway":
            options(arguments)
        case "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            for target in arguments:
                assert "=" in target or target in targets, f"make {target}"
        case "aws":
            aws(arguments)
        case "python" if arguments[:1] == ["-m"]:
            assert importlib.util.find_spec(arguments[1]), arguments[1]
        case _:
            known = Path(name).name in PROGRAMS or (ROOT / name).exists()
            assert known, f"{name} is not known"


def options(arguments: list[str]) -> None:
    """The arguments of ``session-gateway``; files that are named need not be there."""
    group: click.Command = main
    context = click.Context(main, info_name="session-gateway")
    rest = arguments
    while isinstance(group, click.Group):
        name, found, rest = group.resolve_command(context, rest)
        assert found is not None
        group, context = found, click.Context(found, info_name=name, parent=context)
    _, more, _ = group.make_parser(context).parse_args(args=[*rest])
    assert not more, more


def aws(arguments: list[str]) -> None:
    """A service, its operation and what that takes, as AWS's model has them."""
    service, operation, *rest = arguments
    if (service, operation) in {("cloudformation", "deploy"), ("ecr", "get-login-password")}:
        return  # the command line's own, which the API does not have
    model = botocore.session.get_session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    assert shape is not None
    takes = {f"--{xform_name(name, '-')}" for name in shape.members} | {"--region"}
    needed = {f"--{xform_name(name, '-')}" for name in shape.required_members}
    given = {word for word in rest if word.startswith("--")}
    assert given <= takes, given - takes
    assert needed <= given, needed - given
    for option, value in itertools.pairwise(rest):
        if option.startswith("--") and value.startswith("{"):
            json.loads(value)


def _read_by(*program: str, text: str, suffix: str) -> None:
    """Have a program read a file with that text, named last."""
    with tempfile.NamedTemporaryFile("w", suffix=suffix) as file:
        file.write(text)
        file.flush()
        done = subprocess.run([*program, file.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


KINDS: Mapping[str, Callable[[str], None]] = MappingProxyType(
    {
        "toml": toml,
        "python": python,
        "js": javascript,
        "json": from_json,
        "yaml": from_yaml,
        "nginx": nginx,
        "caddy": caddy,
        "dockerfile": dockerfile,
        "sh": shell,
        "console": console,
        "": conversation,
    }
)
"""What looks at a block, by the word behind its fence."""
