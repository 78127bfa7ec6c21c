"""The tests of a command: found, read, and run on one or more processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from streamstack.connections.database.temporary import TestDatabases, TestServer
from streamstack.errors import Diagnostic, Mark
from streamstack.language.cases import FAULTS, Case, CaseFile
from streamstack.language.project import Checked, display_name, find_root, find_tests, is_test, read_tests
from streamstack.language.updates import updated
from streamstack.runtime.probes import Probes
from streamstack.server.endpoints import UnservableError
from streamstack.testing.coverage import Coverage
from streamstack.testing.expectations import Failure, check, uncalled
from streamstack.testing.faults import sweep
from streamstack.testing.mutants import Verdict, trials, try_out
from streamstack.testing.processes import processes_for, run_on_processes
from streamstack.testing.runner import Observation, run_case
from streamstack.testing.session import TestProject
from streamstack.testing.update import holds, observe

#: How long a test may take with a mutant, which may never end: seconds, and times what it takes without.
_MUTANT_LIMIT: Final = 1.0
_TIMES: Final = 10


@dataclass(frozen=True, slots=True)
class Test:
    """A test, in its file and its project."""

    __test__ = False

    file: str
    project: TestProject
    case: Case


@dataclass(frozen=True, slots=True)
class Result:
    """How a test went.

    Args:
        uncalled: The places of upstreams that were never called.
        observed: What `--update` is to write of each of its exchanges.
        hits: How often the probes of its project were reached, by number.
        faults: How many faults it was repeated with.
    """

    file: str
    name: str
    mark: Mark
    seconds: float
    failures: tuple[Failure, ...] = ()
    uncalled: tuple[Mark, ...] = ()
    observed: tuple[Mapping[str, Any], ...] = ()
    hits: Mapping[int, int] = field(default_factory=dict)
    faults: int = 0

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(slots=True)
class Suite:
    """The tests below some paths. ``findings`` are what is wrong with them, and with their projects.

    ``whole``: a folder was named, not only files, so that all definitions are meant to be tested.
    """

    projects: dict[Path, TestProject] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    files: list[CaseFile] = field(default_factory=list)
    whole: bool = False

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

    def coverage(self, results: Iterable[Result]) -> Coverage:
        """Return what tests have run of the definitions of their projects."""
        probes = {test.case.mark: test.project.probes for test in self.tests}
        coverage = Coverage(each.probes for each in self.projects.values() if each.probes is not None)
        for result in results:
            found = probes.get(result.mark)
            if found is not None:
                coverage.add(found, result.hits)
        return coverage if self.whole else coverage.of_reached_files()

    def update(self, results: Iterable[Result]) -> list[Path]:
        """Write what was observed into the files, and return those that have changed. Raises OSError."""
        observed = {result.mark: result.observed for result in results}
        changed = []
        for file in self.files:
            changes = [(case, observed[case.mark]) for case in file.tests if any(observed.get(case.mark, ()))]
            text = updated(file.source, changes, holds)
            if text != file.source:
                file.path.write_bytes(text.encode())
                changed.append(file.path)
        return changed


def _paths(case: Case) -> Iterator[str]:
    for exchange in case.exchanges:
        yield exchange.request.path


def read_suite(paths: Iterable[Path], *, counts: bool = False, mutates: bool = False) -> Suite:
    """Find and read the tests below folders and in files, with the projects they belong to.

    The path of a file of definitions stands for the tests beside it. With ``counts`` the definitions have probes, with
    ``mutates`` mutants too.
    Raises OSError for what can't be opened, and FileNotFoundError for a path that does not exist.
    """
    suite = Suite()
    files: dict[Path, list[Path]] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        root = find_root(path)
        if root not in suite.projects:
            suite.projects[root] = TestProject.read(root, probes=Probes(mutates=mutates) if counts or mutates else None)
        suite.whole = suite.whole or path.is_dir()
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
    """What tests run with.

    Args:
        folder: A folder of their own.
        server: A database server, which is started when a test needs one.
        faults: The faults that passing tests are repeated with, beside those that they name themselves.
        fault: The name of the only fault that they are repeated with.
    """

    folder: Path
    server: TestServer
    faults: frozenset[str] = frozenset()
    fault: str | None = None
    _databases: TestDatabases | None = None

    @property
    def databases(self) -> TestDatabases:
        """The databases of this process."""
        if self._databases is None:
            self._databases = TestDatabases(self.server)
        return self._databases

    def run(self, test: Test) -> Result:
        """Run a test and compare, then with its faults if it passes."""
        result = self.run_once(test)
        return self._sweep(test, result) if result.passed else result

    def run_once(self, test: Test, limit: float | None = None) -> Result:
        """Run a test without faults, for at most ``limit`` seconds, and compare."""
        probes = test.project.probes
        if probes is not None:
            probes.take()
        seen = run_case(test.project, test.case, self.databases, self.folder, limit=limit)
        failures = tuple(check(test.case, seen))
        unused = tuple(uncalled(test.case, seen))
        observed = observe(test.case, seen, failures)
        hits = probes.take() if probes is not None else {}
        return Result(test.file, test.case.name, test.case.mark, seen.seconds, failures, unused, observed, hits)

    def _sweep(self, test: Test, result: Result) -> Result:
        """Repeat a test with its faults."""
        kinds = self.faults_of(test.case)
        if not kinds:
            return result
        began = perf_counter()
        swept = sweep(
            test.project, test.case, self.databases, self.folder, file=test.file, kinds=kinds, only=self.fault
        )
        failures = tuple(
            Failure(test.case.mark, f"with `{each.scenario}`: {'; '.join(each.reasons)}", (f"  {each.command}",))
            for each in swept.violations
        )
        seconds = result.seconds + perf_counter() - began
        return replace(result, failures=failures, faults=swept.count, seconds=seconds)

    def faults_of(self, case: Case) -> frozenset[str]:
        """Return the faults that a test is repeated with."""
        if self.fault is not None:
            return frozenset(FAULTS)
        return self.faults if case.faults is None else case.faults and self.faults | case.faults

    def record(self, test: Test, environment: Mapping[str, str]) -> Observation:
        """Run a test whose calls lead to real upstreams, with more variables than those that it names."""
        case = replace(test.case, env={**test.case.env, **environment}, real_time=True)
        return run_case(test.project, case, self.databases, self.folder, record=True)

    def close(self) -> None:
        """Drop the databases, and stop their server if this process has started it."""
        databases, self._databases = self._databases, None
        if databases is not None:
            databases.close()
        self.server.stop()


@contextmanager
def open_session(
    suite: Suite, database: str | None, *, faults: Iterable[str] = (), fault: str | None = None
) -> Iterator[Session]:
    """Open what the tests of a suite run with, and remove it.

    Args:
        suite: The tests.
        database: The URL of a server for their databases, None for an embedded one.
        faults: The faults that all tests are repeated with.
        fault: The name of the only fault that they are repeated with.

    Raises:
        EmbeddedError: The embedded database can't start.
    """
    folder = Path(tempfile.mkdtemp(prefix="streamstack-test-"))
    settings = (each for test in suite.tests for each in test.project.checked.settings.databases.values())
    server = TestServer(database, next((each.bin for each in settings if each.bin), None))
    session = Session(folder, server, frozenset(faults), fault)
    try:
        if any(test.project.may_use_database(test.case) for test in suite.tests):
            session.server.start()  # before processes are forked, which share it
        yield session
    finally:
        session.close()
        shutil.rmtree(folder, ignore_errors=True)


def run_suite(suite: Suite, session: Session, jobs: int | None) -> Iterator[Result]:
    """Run all tests and yield their results as they come: on ``jobs`` processes, None for as many as are worth it."""
    tests = suite.tests
    if jobs is None and any(session.faults_of(each.case) for each in tests):
        jobs = os.cpu_count()  # a sweep takes so long that each test is worth a process
    if processes_for(len(tests), jobs) > 1:
        for test in tests:
            with suppress(UnservableError, ValueError):  # which are that test's failure
                test.project.edition(test.case.env, variants=test.case.experiments)  # once, before processes are forked
    for index, result in run_on_processes(tests, session.run, session.close, jobs):
        test = tests[index]
        died = (Failure(test.case.mark, "the process that ran this test died"),)
        yield result or Result(test.file, test.case.name, test.case.mark, 0.0, died)


def run_mutants(suite: Suite, results: Iterable[Result], session: Session, jobs: int | None) -> Iterator[Verdict]:
    """Run the tests that reach them with each mutant, and yield what became of it.

    ``results`` are those of the same suite without mutants; tests that failed then notice nothing.
    """
    by_mark = {result.mark: result for result in results if result.passed}
    tests = [test for test in suite.tests if test.case.mark in by_mark and test.project.probes is not None]
    hits = []
    for test in tests:
        result, probes = by_mark[test.case.mark], test.project.probes
        assert probes is not None
        hits.append((probes, result.hits, result.seconds))
    files = {probes.points[number].mark.file for probes, reached, _ in hits for number in reached}
    probes_of_all = [each.probes for each in suite.projects.values() if each.probes is not None]

    def notices(index: int) -> str:
        limit = _MUTANT_LIMIT + _TIMES * hits[index][2]
        return "" if session.run_once(tests[index], limit).passed else tests[index].case.name

    tried = [trial for trial in trials(probes_of_all, hits) if suite.whole or trial.mutant.mark.file in files]
    for index, verdict in run_on_processes(tried, partial(try_out, notices=notices), session.close, jobs):
        yield verdict or Verdict(tried[index].mutant, "a process that died", len(tried[index].tests))
