"""What the page loads and what an app copies is what the modules import."""

import json
import re
from pathlib import Path

STATIC = Path(__file__).parents[2] / "static"
IMPORT = re.compile(r'^(?:import|export)\b[^;]*?\bfrom "([^"]+)";', re.MULTILINE)


def imported(entry: Path) -> set[str]:
    """A module and all that it imports, as addresses beside the page's own."""
    found: set[Path] = set()
    left = [entry]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [
                (module.parent / name).resolve() for name in IMPORT.findall(module.read_text())
            ]
    return {module.relative_to(STATIC).as_posix() for module in found}


def test_the_page_asks_for_all_its_modules_at_once() -> None:
    """Else the browser would find them one after the other, each a round trip later."""
    page = (STATIC / "index.html").read_text()
    preloaded = re.findall(r'<link rel="modulepreload" href="static/([^"]+)">', page)
    assert sorted(preloaded) == sorted(imported(STATIC / "chat.js") - {"chat.js"})


def test_the_package_has_what_the_client_imports() -> None:
    package = json.loads((STATIC / "package.json").read_text())
    assert package["exports"] == "./client.js"
    modules = {f"client/{path.name}" for path in (STATIC / "client").iterdir()}
    assert imported(STATIC / "client.js") == {"client.js"} | modules
    assert package["files"] == ["client.js", "client"]
