"""The tests of a command: found, read, and run on one or more processes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from streamstack.connections.database import uses_of
from streamstack.connections.database.temporary import TestDatabases, TestServer
from streamstack.errors import Diagnostic, Mark
from streamstack.language.cases import Case, CaseFile
from streamstack.language.project import Checked, display_name, find_root, find_tests, is_test, read_tests
from streamstack.testing.expectations import Failure, check, uncalled
from streamstack.testing.runner import Observation, run_case
from streamstack.testing.session import TestProject

#: Tests that are worth a process of their own: it takes as long to start as some tests.
_PER_PROCESS: Final = 8
#: Seconds for a process to end that was asked to.
_END_WITHIN: Final = 5.0


@dataclass(frozen=True, slots=True)
class Test:
    """A test, in its file and its project."""

    __test__ = False

    file: str
    project: TestProject
    case: Case


@dataclass(frozen=True, slots=True)
class Result:
    """How a test went. ``uncalled`` are the places of upstreams that were never called."""

    file: str
    name: str
    mark: Mark
    seconds: float
    failures: tuple[Failure, ...] = ()
    uncalled: tuple[Mark, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(slots=True)
class Suite:
    """The tests below some paths. ``findings`` are what is wrong with them, and with their projects."""

    projects: dict[Path, TestProject] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    files: list[CaseFile] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether nothing can be run for what is wrong."""
        return any(each.severity == "error" for each in self.findings)

    def select(self, pattern: str) -> None:
        """Leave the tests whose name, file or path holds a text, in any case."""
        wanted = pattern.casefold()
        self.tests = [
            each
            for each in self.tests
            if any(wanted in text.casefold() for text in (each.case.name, each.file, *_paths(each.case)))
        ]

    @property
    def uses_database(self) -> bool:
        """Whether any of its projects has a database that a test may use."""
        projects = {id(each.project): each.project for each in self.tests}
        return any(uses_of(each.checked.project, each.checked.settings.databases) for each in projects.values()) or any(
            each.case.rows or each.case.sql for each in self.tests
        )


def _paths(case: Case) -> Iterator[str]:
    for exchange in case.exchanges:
        yield exchange.request.path


def read_suite(paths: Iterable[Path]) -> Suite:
    """Find and read the tests below folders and in files, with the projects they belong to.

    The path of a file of definitions stands for the tests beside it. Raises OSError for what can't be opened, and
    FileNotFoundError for a path that does not exist.
    """
    suite = Suite()
    files: dict[Path, list[Path]] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        root = find_root(path)
        if root not in suite.projects:
            suite.projects[root] = TestProject.read(root)
        known = files.setdefault(root, [])
        known += [each for each in _test_files(path, suite.projects[root].checked) if each not in known]
    for root, project in suite.projects.items():
        read, findings, texts = read_tests(project.checked, files[root])
        suite.findings += [*project.errors, *findings]
        suite.sources |= {**project.checked.sources, **texts}
        suite.files += read
        suite.tests += [Test(display_name(file.path), project, case) for file in read for case in file.tests]
    return suite


def _test_files(path: Path, checked: Checked) -> list[Path]:
    if path.is_dir():
        return [each for each in find_tests(path) if not checked.ignores(each)]
    if is_test(path):
        return [path]
    beside = [path.with_name(f"{path.stem}.test{suffix}") for suffix in (".yaml", ".yml")]
    return [each for each in beside if each.is_file()]


# ------------------------------------------------------------------------------------------ running


@dataclass(slots=True)
class Session:
    """What tests run with: a folder of their own, and a database server where they need one."""

    folder: Path
    address: Any = None
    _databases: TestDatabases | None = None

    def run(self, test: Test) -> Result:
        """Run a test, and compare."""
        if self._databases is None and self.address is not None:
            self._databases = TestDatabases(self.address)
        seen = run_case(test.project, test.case, self._databases, self.folder)
        failures = tuple(check(test.case, seen))
        unused = tuple(uncalled(test.case, seen))
        return Result(test.file, test.case.name, test.case.mark, seen.seconds, failures, unused)

    def record(self, test: Test, environment: Mapping[str, str]) -> Observation:
        """Run a test whose calls lead to real upstreams, with more variables than those that it names."""
        if self._databases is None and self.address is not None:
            self._databases = TestDatabases(self.address)
        case = replace(test.case, env={**test.case.env, **environment}, real_time=True)
        return run_case(test.project, case, self._databases, self.folder, record=True)

    def close(self) -> None:
        """Drop the databases."""
        if self._databases is not None:
            self._databases.close()


@contextmanager
def open_session(suite: Suite, database: str | None) -> Iterator[Session]:
    """Open what the tests of a suite run with, and remove it.

    ``database`` is the URL of a server for their databases, None for an embedded one. Raises EmbeddedError.
    """
    folder = Path(tempfile.mkdtemp(prefix="streamstack-test-"))
    server = None
    try:
        session = Session(folder)
        if database is not None:
            session.address = {"dsn": database}
        elif suite.uses_database:
            programs = {each.bin for project in suite.projects.values() for each in _databases(project)}
            server = TestServer(next((each for each in programs if each is not None), None))
            session.address = server.start()
        yield session
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _databases(project: TestProject) -> Iterable[Any]:
    return project.checked.settings.databases.values()


def run_suite(suite: Suite, session: Session, jobs: int | None) -> Iterator[Result]:
    """Run all tests and yield their results as they come: on ``jobs`` processes, None for as many as are worth it."""
    count = len(suite.tests)
    most = max(1, count // _PER_PROCESS) if jobs is None else count
    processes = min(jobs or os.cpu_count() or 1, most)
    if processes <= 1 or not hasattr(os, "fork"):
        try:
            yield from map(session.run, suite.tests)
        finally:
            session.close()
        return
    yield from _run_on_processes(suite.tests, session.run, session.close, processes)


def _run_on_processes(
    tests: Sequence[Test], run: Callable[[Test], Result], close: Callable[[], None], processes: int
) -> Iterator[Result]:
    """Run tests on processes that are forked, so that they share what was compiled."""
    context = get_context("fork")
    workers: dict[Connection, Any] = {}
    assigned: dict[Connection, int] = {}
    waiting = iter(range(len(tests)))
    for test in tests:
        test.project.edition(test.case.env) if not test.project.errors else None
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, [*workers, ours], tests, run, close), daemon=True)
            with _uninterrupted():
                process.start()
                workers[ours] = process
            theirs.close()
            _assign(ours, waiting, assigned)
        while assigned:
            for ready in wait(list(assigned)):
                assert isinstance(ready, Connection)
                index = assigned.pop(ready)
                try:
                    yield ready.recv()
                except EOFError:
                    test = tests[index]
                    died = Failure(test.case.mark, "the process that ran this test died")
                    yield Result(test.file, test.case.name, test.case.mark, 0.0, (died,))
                    continue
                _assign(ready, waiting, assigned)
        for connection in workers:
            connection.close()
        for process in workers.values():
            process.join(_END_WITHIN)
    finally:
        for process in workers.values():
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back, also from processes that are started meanwhile."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _assign(connection: Connection, waiting: Iterator[int], assigned: dict[Connection, int]) -> None:
    index = next(waiting, None)
    if index is not None:
        connection.send(index)
        assigned[connection] = index


def _work(
    connection: Connection,
    others: Sequence[Connection],
    tests: Sequence[Test],
    run: Callable[[Test], Result],
    close: Callable[[], None],
) -> None:
    """Run the tests that are asked for, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    for each in others:
        each.close()
    try:
        while True:
            connection.send(run(tests[connection.recv()]))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        close()
