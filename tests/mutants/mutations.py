"""What is changed: mutmut's operators over all of a module, and two of our own.

mutmut itself changes the bodies of functions without decorators alone. Constants, defaults, tables,
properties and cached functions are as easy to get wrong, so here a mutant is a module's source with
one thing changed, wherever that is. Left out is what says nothing of behaviour: annotations,
decorators, names of types, the bases of classes, `__slots__`, docstrings and assertions.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst import matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

_SILENT = (
    m.Annotation()
    | m.Decorator()
    | m.Import()
    | m.ImportFrom()
    | m.Assert()
    | m.Assign(targets=[m.AssignTarget(m.Name("__slots__"))])
    | m.Assign(targets=[m.AssignTarget(m.Name(m.MatchRegex("[A-Z][A-Za-z]*[a-z]")))])  # of a type
    | m.Assign(value=m.Call(func=m.Name("TypeVar")))
    | m.Call(func=m.Name("isinstance") | m.Name("len"))
)
_ELSEWHERE = m.Attribute() | m.Subscript()
_DISPENSABLE = (
    m.Expr(m.Call() | m.Await())
    | m.Del()
    | m.Raise()
    | m.Return(value=None)
    | m.AugAssign()
    | m.Assign(targets=[m.AssignTarget(_ELSEWHERE)])
    | m.AnnAssign(target=_ELSEWHERE)
)


@dataclass(frozen=True)
class Mutant:
    """A module with a fault.

    Attributes:
        path: The module's file.
        scope: The function or class that is changed; empty for the module itself.
        lines: Those of the statement that is changed.
        was: What stands there.
        becomes: What the mutant has in its place.
        source: All of the mutant.
    """

    path: Path
    scope: str
    lines: range
    was: str
    becomes: str
    source: str


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a module."""
    source = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor()
    wrapper.visit(visitor)
    found: dict[str, Mutant] = {}
    for scope, lines, node, changed in visitor.found:
        module = wrapper.module.deep_replace(node, changed)
        assert isinstance(module, cst.Module)
        mutated = module.code
        if mutated != source and mutated not in found:
            was, becomes = _difference(source, mutated)
            found[mutated] = Mutant(path, scope, lines, was, becomes, mutated)
    return list(found.values())


def _difference(source: str, mutated: str) -> tuple[str, str]:
    lines = [*difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm="")]
    return tuple(  # type: ignore[return-value]
        " ".join(line[1:].strip() for line in lines[2:] if line.startswith(sign)) for sign in "-+"
    )


def _forced(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """A condition that says nothing."""
    yield node.with_changes(test=cst.Name("False"))
    if isinstance(node, cst.If):
        yield node.with_changes(test=cst.Name("True"))


def _changed(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            yield from operator(node)
    if isinstance(node, cst.If | cst.While):
        yield from _forced(node)
    if m.matches(node, _DISPENSABLE):
        yield cst.Pass()


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[str, range, cst.CSTNode, cst.CSTNode]] = []
        self._scope: list[str] = []
        self._statements: list[cst.CSTNode] = []

    def _range(self, node: cst.CSTNode) -> CodeRange:
        found = self.get_metadata(PositionProvider, node)
        assert isinstance(found, CodeRange)
        return found

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, _SILENT):
            return False
        if isinstance(node, cst.BaseStatement):
            self._statements.append(node)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scope.append(node.name.value)
        if isinstance(node, cst.ClassDef):
            node.body.visit(self)
            return False  # its header is left out
        for changed in _changed(node):
            self.found.append((".".join(self._scope), self._lines(node), node, changed))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.BaseStatement):
            self._statements.pop()
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._scope.pop()

    def _lines(self, node: cst.CSTNode) -> range:
        statement = self._statements[-1] if self._statements else node
        first = self._range(statement).start.line
        whole = node.test if isinstance(node, cst.If | cst.While) else node
        return range(first, self._range(whole).end.line + 1)
