"""Imports point downwards only: a test that walks them, so that the rooms stay apart."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gateway

assert gateway.__file__ is not None
ROOT = Path(gateway.__file__).parent

# What each room may import of the others. A room is a module or package under ``gateway``.
ALLOWED = {
    "errors": set[str](),
    "addresses": set[str](),
    "logo": set[str](),
    "logs": set[str](),
    "budget": set[str](),
    "admin": {"measures", "protocol", "runner", "session", "sessions", "telemetry"},
    "admission": {"errors"},
    "measures": set[str](),
    "tally": {"errors", "measures", "protocol", "session"},
    "tracecontext": set[str](),
    "guard": {"errors", "logs", "measures", "session", "turnstile"},
    "security": {"addresses", "admission", "errors", "logs", "session"},
    "turnstile": set[str](),
    "subscribers": {"session", "protocol", "errors"},
    "protocol": {"errors"},
    "formats": {"protocol", "errors"},
    "session": {"formats", "protocol", "errors"},
    "route": {"logs", "session", "protocol", "errors", "tally"},
    "health": {"session"},
    "keeping": {"health", "session", "protocol"},
    "calls": {"route", "session", "errors", "turnstile"},
    "runner": {
        "budget",
        "calls",
        "health",
        "keeping",
        "route",
        "session",
        "subscribers",
        "tally",
        "protocol",
        "errors",
        "turnstile",
    },
    "conversation": {"route", "session", "subscribers", "protocol"},
    "stores": {"measures", "session"},
    "sessions": {
        "admission",
        "budget",
        "conversation",
        "route",
        "runner",
        "session",
        "errors",
        "subscribers",
        "turnstile",
    },
    "replicas": {
        "admission",
        "conversation",
        "health",
        "runner",
        "session",
        "sessions",
        "protocol",
        "errors",
        "route",
    },
    "sagemaker": {"formats", "session", "protocol", "errors", "addresses", "logs"},
    "transports": {
        "admin",
        "admission",
        "budget",
        "conversation",
        "formats",
        "sessions",
        "route",
        "session",
        "protocol",
        "errors",
        "addresses",
        "logo",
        "logs",
        "tracecontext",
        "turnstile",
    },
    "config": {"sagemaker", "security", "formats", "session", "protocol", "addresses"},
    "storeconfig": {"config", "measures", "session", "stores"},
    "telemetry": {
        "errors",
        "guard",
        "measures",
        "protocol",
        "session",
        "sessions",
        "tally",
        "tracecontext",
    },
    "metricsport": {"addresses", "config", "process", "telemetry", "transports"},
    "checks": {
        "addresses",
        "config",
        "formats",
        "logo",
        "sagemaker",
        "security",
        "session",
        "storeconfig",
    },
    "logconfig": {"logs"},
    "upstream": {"config", "sagemaker", "session"},
    "authconfig": {"config", "security"},
    "app": {
        "admin",
        "admission",
        "authconfig",
        "budget",
        "config",
        "guard",
        "logo",
        "measures",
        "metricsport",
        "replicas",
        "route",
        "security",
        "session",
        "sessions",
        "storeconfig",
        "sagemaker",
        "tally",
        "telemetry",
        "transports",
        "upstream",
    },
    "embedding": {"app", "config", "logconfig"},
    "live": {"addresses", "config", "errors", "protocol", "sagemaker", "session", "upstream"},
    "serving": {
        "app",
        "budget",
        "config",
        "logconfig",
        "logs",
        "process",
        "security",
        "telemetry",
        "transports",
        "turnstile",
    },
    "process": set[str](),
    "workers": {"config", "logconfig", "metricsport", "process", "telemetry"},
    "worker": {"config", "process", "serving", "telemetry", "workers"},
    "client": {"protocol", "errors", "addresses"},
    "local": set[str](),
    "demo": {"config", "local", "process", "serving", "workers"},
    "starter": {"config", "sagemaker"},
    "initcommand": {"starter"},
    "completion": set[str](),
    "cli": {
        "checks",
        "client",
        "completion",
        "config",
        "demo",
        "initcommand",
        "live",
        "local",
        "security",
        "serving",
        "workers",
    },
    "__main__": {"cli"},
}

# What each room may not import of the world: the core does no I/O, and foreign libraries stay at
# their edge.
FOREIGN = {
    "aiobotocore": {"sagemaker"},
    "aiohttp": {"local", "sagemaker", "security"},
    "asyncio": {
        "admin",
        "guard",
        "health",
        "keeping",
        "replicas",
        "runner",
        "sessions",
        "stores",
        "cli",
        "client",
        "demo",
        "embedding",
        "live",
        "local",
        "sagemaker",
        "security",
        "serving",
        "process",
        "telemetry",
        "transports",
        "turnstile",
        "worker",
        "workers",
    },
    "botocore": {"sagemaker", "local"},
    "cachetools": {"security", "stores", "local"},
    "h11": {"transports"},
    "jmespath": {"formats"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry"},
    "prompt_toolkit": {"client"},
    "pydantic": {"config", "starter"},
    "pydantic_settings": {"config"},
    "rich": {"client", "live", "local"},
    "starlette": {
        "app",
        "embedding",
        "metricsport",
        "serving",
        "telemetry",
        "transports",
        "local",
    },
    "uvicorn": {"metricsport", "serving", "transports", "local"},
    "valkey": {"stores"},
    "websockets": {"client", "transports"},
}


# What the core may import, of the standard library and of others: nothing that reads a clock or the
# outside world, waits, or keeps something of its own running.
CORE = {"protocol", "session"}
PURE = {
    "array",
    "base64",
    "binascii",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "itertools",
    "math",
    "msgspec",
    "operator",
    "re",
    "types",
    "typing",
}
IMPURE = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}
"""What needs no import."""
CLOCK = re.compile(r"(datetime\.)*(date|datetime)\.(now|today|utcnow)")


USES = (ast.Name, ast.Attribute)


def room_of(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(source: str) -> Iterator[str]:
    """All imports, those within functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "gateway":
                yield from (f"gateway.{name.name}" for name in node.names)


def forbidden(room: str, source: str) -> list[str]:
    """What a module of that room uses and may not."""
    found = []
    for name in imports(source):
        top, _, rest = name.partition(".")
        if top == "gateway":
            allowed = rest.partition(".")[0] in {"", "__version__", room} | ALLOWED[room]
        elif room in CORE:
            allowed = top in PURE
        else:
            allowed = room in FOREIGN.get(top, {room})
        found += [] if allowed else [name]
    if room in CORE:
        names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, USES)]
        uses = [ast.unparse(name) for name in names]
        found += [name for name in uses if name in IMPURE or CLOCK.fullmatch(name)]
    return found


MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(module: Path) -> None:
    assert forbidden(room_of(module), module.read_text()) == []


@pytest.mark.parametrize("room", sorted(CORE))
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import socket, time", ["socket", "time"]),
        ("import re, os.path", ["os.path"]),
        ("from asyncio import sleep", ["asyncio"]),
        ("import importlib", ["importlib"]),
        ("from gateway import stores", ["gateway.stores"]),
        ("from gateway.runner import Runner", ["gateway.runner"]),
        ("open('file').read()", ["open"]),
        ("__import__('socket')", ["__import__"]),
        ("datetime.now(UTC)", ["datetime.now"]),
        ("import msgspec, collections.abc", []),
        ("from gateway.errors import ErrorCode", []),
    ],
)
def test_what_the_core_may_not_use_is_found(room: str, line: str, found: list[str]) -> None:
    """Wherever in a module it is."""
    module = next(path for path in MODULES if room_of(path) == room and path.stem == "__init__")
    source = module.read_text()
    assert forbidden(room, f"{source}\n{line}\n") == found
    assert forbidden(room, f"{source}\ndef use() -> None:\n    {line}\n") == found


def test_rooms_that_are_not_the_core_are_held_to_their_own_rules() -> None:
    assert forbidden("sagemaker", "import socket, asyncio") == []
    assert forbidden("stores", "import cachetools, rich, starlette") == ["rich", "starlette"]
    assert forbidden("errors", "from gateway.session import session") == ["gateway.session"]


def test_arrows_make_no_circle() -> None:
    TopologicalSorter(ALLOWED).prepare()


def test_every_room_is_known() -> None:
    rooms = {room_of(module) for module in MODULES}
    assert rooms <= set(ALLOWED)
