"""`streamstack test`: run the tests of definitions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep, time
from typing import Any, Final

import click
from rich.console import Console

from streamstack.cli import CLEAN, FOUND, give_up
from streamstack.cli.validate import default_paths
from streamstack.connections.database.embedded import EmbeddedError
from streamstack.language.cases import FAULTS
from streamstack.language.findings import write_text
from streamstack.language.project import display_name
from streamstack.testing import fixtures
from streamstack.testing.coverage import Coverage
from streamstack.testing.mutants import Verdict, report
from streamstack.testing.report import Report, write_junit
from streamstack.testing.suite import Result, Session, Suite, open_session, read_suite, run_mutants, run_suite

#: Seconds between looks at the files.
_POLL: Final = 0.3
_NO_TESTS: Final = """\
no tests found in {paths}. Write one into a file beside the definition, for example hello.test.yaml:

    tests:
      - name: greets
        request: {{path: /hello}}
        expect: {{text: HelloWorld}}\
"""


@click.command(short_help="Run the tests of definitions.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("-k", "pattern", metavar="TEXT", help="Run only tests with this text in their name, file or path.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the results as JUnit XML.")
@click.option(
    "--record",
    is_flag=True,
    help="Send calls that no upstream of a test answers to their hosts, and write the answers into `fixtures/`.",
)
@click.option(
    "--faults", is_flag=True, help="Repeat each test with every fault: cut upstreams, clients that leave, ..."
)
@click.option("--fault", metavar="NAME", help="Repeat each test with one fault, as a failed `--faults` names it.")
@click.option("--watch", is_flag=True, help="Run again whenever a file changes.")
@click.option(
    "--update",
    is_flag=True,
    help="Write what was observed where an expectation failed or is empty, and run the tests again.",
)
@click.option("--coverage", is_flag=True, help="Show which steps and branches of the definitions were not run.")
@click.option(
    "--coverage-xml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the coverage as Cobertura's XML, in which each step is a line.",
)
@click.option(
    "--mutate",
    is_flag=True,
    help="Change one step, condition or constant of the definitions at a time, and show what no test notices.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Number of processes.  [default: one per CPU, if there are enough tests]",
)
@click.option(
    "--database",
    metavar="URL",
    help="PostgreSQL server on which the databases of tests are created.  [default: an embedded one]",
)
@click.pass_context
def test(
    context: click.Context, /, paths: tuple[Path, ...], *, watch: bool, record: bool, update: bool, **options: Any
) -> None:
    """Run the tests in `*.test.yaml` files: files, or all in folders (`definitions/`, or the current folder).

    Each test has a server, a memory and databases of its own. Waits take no time. Environment variables and
    `.env` are not read: a test has the variables that it names. With `--record` it has the environment's, too.

    With `--faults`, each test that passes is repeated with one fault at a time: upstreams that refuse, answer 429
    and 500, are cut, stall or send what is invalid, clients that leave, read slowly or come back, databases that are
    lost. What holds then without being written is checked, such as that a failed stream never looks finished.

    Exit codes: 0 if all tests passed, 1 if a test failed or a file has errors, 2 if the command could not run.
    """
    command = _Command(paths or default_paths(), **options)
    try:
        if record:
            command.record()
        code = command.update() if update else command.run()
        while watch:
            command.wait_for_change()
            code = command.run()
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    except EmbeddedError as error:
        give_up(context, str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        context.exit(130)
    if code is None:
        give_up(context, _NO_TESTS.format(paths=", ".join(map(str, command.paths))))
    context.exit(code)


@dataclass(slots=True)
class _Command:
    paths: tuple[Path, ...]
    pattern: str | None
    junit: Path | None
    faults: bool
    fault: str | None
    coverage: bool
    coverage_xml: Path | None
    mutate: bool
    jobs: int | None
    database: str | None
    _report: Report = field(default_factory=lambda: Report(Console(), Console(stderr=True)))
    _folders: set[Path] = field(default_factory=set)
    _stamps: dict[str, tuple[int, int]] = field(default_factory=dict)

    def run(self) -> int | None:
        """Run the tests once; return the exit code, None where there are none."""
        began = perf_counter()
        suite = self._read()
        if suite.failed:
            click.echo(write_text(sorted(suite.findings), suite.sources), nl=False)
            return FOUND
        if not suite.files:
            return None
        faults = FAULTS if self.faults else ()
        with open_session(suite, self.database, faults=faults, fault=self.fault) as session:
            results = self._results(suite, session)
            self._report.failures(results)
            self._report.notes(results)
            if self.coverage or self.coverage_xml is not None:
                self._show_coverage(suite.coverage(results))
            if self.mutate:
                click.echo("\n".join(report(self._verdicts(suite, results, session))))
        self._report.summary(results, perf_counter() - began)
        if self.fault is not None and not any(each.faults for each in results):
            click.echo(f"no test that passes has the fault `{self.fault}`: `--faults` tries all there are", err=True)
            return FOUND
        if self.junit is not None:
            write_junit(results, self.junit)
        return CLEAN if all(each.passed for each in results) else FOUND

    def update(self) -> int | None:
        """Write what the tests observe into their files, then run them."""
        suite = self._read()
        if not suite.failed:
            with open_session(suite, self.database) as session:
                results = self._results(suite, session)
            for path in suite.update(results):
                click.echo(f"{display_name(path)}: updated")
        return self.run()

    def record(self) -> None:
        """Run the tests with real upstreams, and write what these answer into fixtures."""
        suite = self._read()
        if suite.failed:
            return  # which running tells
        lines = 0
        with open_session(suite, self.database) as session:
            for line in fixtures.record(suite, session, os.environ):
                lines += 1
                click.echo(line)
        if not lines:
            click.echo("nothing to record: upstreams of the tests answer all calls")

    def _read(self) -> Suite:
        self._folders |= {each if each.is_dir() else each.parent for each in self.paths}
        self._stamps = _stamps(self._folders)
        suite = read_suite(self.paths, counts=self.coverage or self.coverage_xml is not None, mutates=self.mutate)
        self._folders |= set(suite.projects)
        if self.pattern is not None:
            suite.select(self.pattern)
        return suite

    def _results(self, suite: Suite, session: Session) -> list[Result]:
        running = run_suite(suite, session, self.jobs)
        with self._report.follow(running, len(suite.tests)) as followed:
            return sorted(followed, key=lambda each: each.mark)

    def _verdicts(self, suite: Suite, results: list[Result], session: Session) -> list[Verdict]:
        count = sum(len(each.probes.mutants) for each in suite.projects.values() if each.probes is not None)
        with self._report.follow(run_mutants(suite, results, session, self.jobs), count, "mutants") as followed:
            return list(followed)

    def _show_coverage(self, coverage: Coverage) -> None:
        if self.coverage:
            click.echo("\n".join(coverage.lines()))
        if self.coverage_xml is not None:
            coverage.write_cobertura(self.coverage_xml, time())

    def wait_for_change(self) -> None:
        """Wait until a file of the projects changes."""
        click.echo("waiting for changes; Ctrl-C ends", err=True)
        while _stamps(self._folders) == self._stamps:
            sleep(_POLL)


def _stamps(folders: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return when files were changed, and their sizes, without hidden ones."""
    found = {}
    for folder in folders:
        for parent, below, names in os.walk(folder):
            below[:] = [each for each in below if not each.startswith(".")]
            for name in names:
                try:
                    status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118  (many files, each time)
                except OSError:
                    continue
                found[f"{parent}/{name}"] = (status.st_mtime_ns, status.st_size)
    return found
