"""The package for npm: what it holds, and that it works where it is installed."""

import json
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import npm
from tests.support.npm import CLIENT, NEWEST, OLDEST, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = json.loads((CLIENT / "package.json").read_text())
EXAMPLES = CLIENT / "examples"
DOCUMENTS = (CLIENT / "README.md", ROOT / "docs" / "clients.md")
NODE_TYPES = ("@types/node", "@types/ws", "undici-types", "ws")
REACT_TYPES = ("@types/react", "@types/react-dom", "csstype")
STRICT = {
    "strict": True,
    "noEmit": True,
    "exactOptionalPropertyTypes": True,
    "target": "es2023",
    "module": "nodenext",
}


def test_it_is_the_projects() -> None:
    assert PACKAGE["version"] == PROJECT["version"]
    assert PACKAGE["license"] == PROJECT["license"]
    assert "dependencies" not in PACKAGE
    assert all(re.fullmatch(r"[\d.]+", version) for version in PACKAGE["devDependencies"].values())


def test_it_holds_the_modules_and_their_types_and_nothing_else(npm_package: Path) -> None:
    (tarball,) = npm_package.glob("*.tgz")
    assert tarball.name == f"session-gateway-client-{PROJECT['version']}.tgz"
    static = ROOT / "static"
    modules = [static / "client.js", *(static / "client").iterdir(), CLIENT / "react.js"]
    built = {
        f"package/dist/{'client/' if module.parent.name == 'client' else ''}{module.stem}{suffix}"
        for module in modules
        for suffix in (".js", ".d.ts")
    }
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
        licence = archive.extractfile("package/LICENSE")
        assert licence is not None
        assert licence.read() == (ROOT / "LICENSE").read_bytes()
    beside = {"package/LICENSE", "package/README.md", "package/package.json"}
    assert sorted(names) == sorted(built | beside)


@pytest.mark.parametrize("executable", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_node_imports_it(npm_package: Path, executable: str) -> None:
    script = """
        import * as client from "session-gateway-client";
        import { createRequire } from "node:module";
        const require = createRequire(import.meta.url);
        const { version } = require("session-gateway-client/package.json");
        console.log(JSON.stringify([version, Object.keys(client)]));
    """
    run = [executable, "--input-type=module", "--eval", script]
    out = subprocess.run(run, cwd=npm_package / "app", capture_output=True, check=True).stdout
    version, names = json.loads(out)
    assert version == PROJECT["version"]
    assert {"SessionClient", "Turn", "MessageError"} <= set(names)


@pytest.fixture
def project(npm_package: Path, tmp_path: Path) -> Path:
    """One of a user's, with the package."""
    folder = tmp_path / "project"
    shutil.copytree(npm_package / "app", folder)
    return folder


def check(project: Path, *packages: str, **options: Any) -> str:
    """What the compiler says of a project."""
    npm.link(project, packages)
    config = {"compilerOptions": STRICT | options, "include": ["*.ts", "*.tsx", "*.js"]}
    (project / "tsconfig.json").write_text(json.dumps(config))
    return npm.tsc("--project", ".", cwd=project)


def test_the_types_of_the_examples_in_node(project: Path) -> None:
    """With Node's types alone, and those of the package itself checked too."""
    for example in ("node.js", "typescript.ts"):
        shutil.copy(EXAMPLES / example, project)
    for number, document in enumerate(DOCUMENTS):
        (script,) = re.findall(r"```js\n(.*?)```", document.read_text(), re.DOTALL)
        (project / f"script{number}.ts").write_text(script)
    check(project, *NODE_TYPES, lib=["es2023"], types=["node"], allowJs=True, checkJs=True)


def test_the_types_of_the_examples_in_react(project: Path) -> None:
    shutil.copy(EXAMPLES / "react" / "chat.tsx", project)
    for number, document in enumerate(DOCUMENTS):
        (component,) = re.findall(r"```jsx\n(.*?)```", document.read_text(), re.DOTALL)
        (project / f"component{number}.tsx").write_text(component)
    check(project, *REACT_TYPES, lib=["es2023", "dom"], types=[], jsx="react-jsx")


def test_its_types_find_mistakes(project: Path) -> None:
    wrong = {
        "client.send(5);": "'number' is not assignable",
        "client.send({ txt: 'Hello' });": "'txt' does not exist",
        "client.addEventListener('turn', ({ detail }) => detail.words);": "'words' does not exist",
        "const length: number = (await client.send('Hello')).text;": "not assignable to type",
        "client.send('Hello').then((done) => done.words);": "'words' does not exist",
        "new SessionClient('ws://127.0.0.1/ws', { held: true });": "'held' does not exist",
    }
    beginning = 'import { SessionClient } from "session-gateway-client";'
    lines = [f"{beginning} const client = new SessionClient('ws://127.0.0.1/ws');", *wrong]
    (project / "wrong.ts").write_text("\n".join(lines))
    with pytest.raises(AssertionError) as complaint:
        check(project, lib=["es2023", "dom"], types=[])
    found = re.findall(
        r"^wrong\.ts\((\d+),\d+\): error \w+: (.*)$", str(complaint.value), re.MULTILINE
    )
    assert [int(line) for line, _ in found] == list(range(2, 2 + len(wrong)))
    for (_, said), words in zip(found, wrong.values(), strict=True):
        assert words in said


def test_react_on_a_server(project: Path) -> None:
    """Nothing is opened there: the program ends, and has no ``WebSocket``."""
    npm.link(project, ("react", "react-dom"))
    script = """
        import { createElement } from "react";
        import { renderToString } from "react-dom/server";
        import { useSession } from "session-gateway-client/react";
        function Chat() {
          const { state, reason, turns, history } = useSession("ws://127.0.0.1:9/ws");
          return JSON.stringify([state, reason, turns, history]).replaceAll('"', "");
        }
        console.log(renderToString(createElement(Chat)));
    """
    run = [OLDEST, "--input-type=module", "--eval", script]
    ended = subprocess.run(run, cwd=project, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("[connecting,,[],[]]\n", "")
