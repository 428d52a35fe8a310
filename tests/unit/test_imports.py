"""Imports point downwards only: a test that walks them, so that the rooms stay apart."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway

assert gateway.__file__ is not None
ROOT = Path(gateway.__file__).parent

# What each room may import of the others. A room is a module or package under ``gateway``.
ALLOWED = {
    "errors": set[str](),
    "addresses": set[str](),
    "logs": set[str](),
    "protocol": {"errors"},
    "session": {"protocol", "errors"},
    "runner": {"session", "protocol", "errors"},
    "stores": {"session"},
    "sagemaker": {"session", "errors", "addresses", "logs"},
    "transports": {"runner", "session", "protocol", "errors", "addresses", "logs"},
    "tomlfile": set[str](),
    "mistakes": {"sagemaker", "tomlfile"},
    "config": {"mistakes", "tomlfile", "session", "sagemaker", "addresses"},
    "checks": {"config", "sagemaker", "session", "tomlfile"},
    "app": {"config", "runner", "stores", "sagemaker", "transports"},
    "client": {"protocol", "errors", "addresses"},
    "local": set[str](),
    "demo": {"app", "config", "local"},
    "cli": {"app", "checks", "client", "config", "demo", "local"},
    "__main__": {"cli"},
}

# What each room may not import of the world: the core does no I/O, and foreign libraries stay at
# their edge.
FOREIGN = {
    "aiobotocore": {"sagemaker"},
    "aiohttp": {"local", "sagemaker"},
    "asyncio": {"runner", "app", "cli", "client", "demo", "local", "sagemaker", "transports"},
    "botocore": {"sagemaker", "local"},
    "cachetools": {"stores", "local"},
    "jmespath": {"sagemaker"},
    "prompt_toolkit": {"client"},
    "rich": {"client"},
    "starlette": {"app", "transports", "local"},
    "uvicorn": {"app", "transports", "local"},
    "websockets": {"client", "transports"},
}


def room_of(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "gateway":
                yield from (f"gateway.{name.name}" for name in node.names)


MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(module: Path) -> None:
    room = room_of(module)
    for name in imports(module):
        top, _, rest = name.partition(".")
        if top == "gateway":
            target = rest.partition(".")[0]
            assert target in {"", "__version__", room} | ALLOWED[room], f"{room} imports {name}"
        else:
            assert room in FOREIGN.get(top, {room}), f"{room} imports {name}"


def test_every_room_is_known() -> None:
    rooms = {room_of(module) for module in MODULES}
    assert rooms <= set(ALLOWED)
