"""Runs tests against mutants, each in a process of its own that ends with it.

The processes are forked from one that has loaded what the tests import but the gateway itself, so
that a mutant costs what its tests do and not the start of Python. A mutant is run by those tests
alone that reach the lines that are changed, the quickest first, until one fails.
"""

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Literal

import coverage
import pytest

from tests.mutants.mutations import Mutant

Verdict = Literal["killed", "timeout", "survived"]

CPU_SECONDS = 5
"""What the tests of a mutant may take of a core, beside three times what they take without it."""
WALL_SECONDS = 20.0
"""How long they may take, beside ten times that: some wait, and the machine may be busy."""
MEMORY_BYTES = 2 << 30

OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-profile=mutants")


@dataclass
class Reach:
    """What the tests reach.

    Attributes:
        seconds: How much time each takes on a processor.
        tests: By file and line, those that run it; none where that is done by importing it.
        modules: What was imported for them.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def of(self, mutant: Mutant) -> set[str]:
        """The tests that may notice a mutant."""
        lines = self.tests[str(mutant.path)]
        at_it = {test for line in mutant.lines for test in lines.get(line, ())}
        return at_it or set(self.seconds)  # what is run by importing it may concern each


class _Measuring:
    """Notes which test runs which line."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.reach = Reach()
        self._paths = [str(path.resolve()) for path in paths]
        self._coverage = coverage.Coverage(
            data_file=None, include=self._paths, config_file=False, branch=False
        )

    def start(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        began = time.process_time()
        result = yield
        self.reach.seconds[item.nodeid] = time.process_time() - began
        return result

    def stop(self) -> Reach:
        self._coverage.stop()
        data = self._coverage.get_data()
        for path in self._paths:
            self.reach.tests[os.path.relpath(path)] = {
                line: [context for context in contexts if context]  # but not when it is imported
                for line, contexts in data.contexts_by_lineno(path).items()
            }
        own = ("gateway", "tests", "conftest")
        self.reach.modules = [name for name in sys.modules if name.split(".")[0] not in own]
        return self.reach


def measure(tests: Iterable[str], paths: Iterable[Path]) -> Reach:
    """Run the tests without any mutant.

    Raises:
        RuntimeError: They fail.
    """
    reading, writing = os.pipe()

    def run() -> int:
        measuring = _Measuring(paths)
        measuring.start()
        code = pytest.main([*OPTIONS, *tests], plugins=[measuring])
        with os.fdopen(writing, "w") as file:
            json.dump(vars(measuring.stop()), file)
        return code

    process = _fork(run)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise RuntimeError("the tests fail without any mutant")
    found = json.loads(answer)
    lines = found.pop("tests")
    reach = Reach(**found)
    for path, tests_of in lines.items():
        reach.tests[path] = {int(line): names for line, names in tests_of.items()}
    for name in reach.modules:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # none of it is looked at again when a test's process collects its garbage
    return reach


class _Chosen:
    """Runs the tests that are wanted, the quickest first."""

    def __init__(self, wanted: Mapping[str, float]) -> None:
        self._wanted = wanted

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._wanted]
        items.sort(key=lambda item: self._wanted[item.nodeid])


class _Loader(SourceFileLoader):
    """Loads a mutant in place of its module."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        super().__init__(name, str(mutant.path.resolve()))
        self._source = mutant.source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.get_filename(fullname), "exec", dont_inherit=True)


class _Finder:
    """Finds a mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = ".".join(mutant.path.with_suffix("").parts)
        self._mutant = mutant

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return spec_from_file_location(name, loader=_Loader(name, self._mutant))


def trials(
    mutants: Iterable[Mutant], reach: Reach, workers: int
) -> Iterator[tuple[Mutant, Verdict]]:
    """What becomes of mutants, as it turns out."""
    running: dict[int, tuple[Mutant, float]] = {}  # with when its time is up
    waiting = deque(mutants)
    while waiting or running:
        while waiting and len(running) < workers:
            mutant = waiting.popleft()
            wanted = {test: reach.seconds[test] for test in reach.of(mutant)}
            limit = WALL_SECONDS + 10 * sum(wanted.values())
            process = _fork(partial(_try, mutant, wanted))
            running[process] = mutant, time.monotonic() + limit
        for process, (mutant, due) in [*running.items()]:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del running[process]
                yield mutant, _verdict(os.waitstatus_to_exitcode(status))
            elif time.monotonic() > due:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def check(path: Path, reach: Reach) -> None:
    """See that it is the faults of mutants that tests notice, by one that has none.

    Raises:
        RuntimeError: The tests fail all the same.
    """
    source = path.read_text()
    harmless = Mutant(path, "", range(len(source)), "", "", source)
    if [verdict for _, verdict in trials([harmless], reach, 1)] != ["survived"]:
        raise RuntimeError("the tests fail where nothing is changed")


def _verdict(code: int) -> Verdict:
    if code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return "survived"
    return "timeout" if -code in {signal.SIGXCPU, signal.SIGKILL} else "killed"


def _try(mutant: Mutant, wanted: Mapping[str, float]) -> int:
    limit = CPU_SECONDS + int(3 * sum(wanted.values()))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.meta_path.insert(0, _Finder(mutant))
    files = sorted({test.partition("::")[0] for test in wanted})
    return pytest.main([*OPTIONS, *files], plugins=[_Chosen(wanted)])


def _fork(work: Callable[[], int]) -> int:
    """A process that does this work, and says nothing; its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        code = int(work())
    finally:
        os._exit(code)
