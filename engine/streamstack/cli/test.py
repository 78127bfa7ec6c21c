"""`streamstack test`: run the tests of definitions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter, sleep
from typing import Final

import click
from rich.console import Console

from streamstack.cli import CLEAN, FOUND, give_up
from streamstack.cli.validate import default_paths
from streamstack.connections.database.embedded import EmbeddedError
from streamstack.language.findings import write_text
from streamstack.testing import fixtures
from streamstack.testing.report import Report, write_junit
from streamstack.testing.suite import Result, Suite, open_session, read_suite, run_suite

#: Seconds between looks at the files.
_LOOK: Final = 0.3
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
@click.option("--watch", is_flag=True, help="Run again whenever a file changes.")
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
    context: click.Context,
    paths: tuple[Path, ...],
    *,
    pattern: str | None,
    junit: Path | None,
    record: bool,
    watch: bool,
    jobs: int | None,
    database: str | None,
) -> None:
    """Run the tests in `*.test.yaml` files: files, or all in folders (`definitions/`, or the current folder).

    Each test has a server, a memory and databases of its own. Waits take no time. Environment variables and
    `.env` are not read: a test has the variables that it names. With `--record` it has the environment's, too.

    Exit codes: 0 if all tests passed, 1 if a test failed or a file has errors, 2 if the command could not run.
    """
    command = _Command(paths or default_paths(), pattern, junit, jobs, database)
    try:
        if record:
            command.record()
        code = command.run()
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


class _Command:
    def __init__(
        self, paths: tuple[Path, ...], pattern: str | None, junit: Path | None, jobs: int | None, database: str | None
    ) -> None:
        self.paths = paths
        self._pattern = pattern
        self._junit = junit
        self._jobs = jobs
        self._database = database
        self._report = Report(Console(), Console(stderr=True))
        self._folders: set[Path] = {each if each.is_dir() else each.parent for each in paths}
        self._stamps: dict[str, tuple[int, int]] = {}

    def run(self) -> int | None:
        """Run the tests once; return the exit code, None where there are none."""
        self._stamps = _stamps(self._folders)
        began = perf_counter()
        suite = self._read()
        if suite.failed:
            click.echo(write_text(sorted(suite.findings), suite.sources), nl=False)
            return FOUND
        if not suite.files:
            return None
        results = self._results(suite)
        self._report.failures(results)
        self._report.notes(results)
        self._report.summary(results, perf_counter() - began)
        if self._junit is not None:
            write_junit(results, self._junit)
        return CLEAN if all(each.passed for each in results) else FOUND

    def record(self) -> None:
        """Run the tests with real upstreams, and write what these answer into fixtures."""
        suite = self._read()
        if suite.failed:
            return  # which running tells
        lines = 0
        with open_session(suite, self._database) as session:
            for line in fixtures.record(suite, session, os.environ):
                lines += 1
                click.echo(line)
        if not lines:
            click.echo("nothing to record: upstreams of the tests answer all calls")

    def _read(self) -> Suite:
        suite = read_suite(self.paths)
        self._folders |= set(suite.projects)
        if self._pattern is not None:
            suite.select(self._pattern)
        return suite

    def _results(self, suite: Suite) -> list[Result]:
        with open_session(suite, self._database) as session:
            running = run_suite(suite, session, self._jobs)
            with self._report.follow(running, len(suite.tests)) as followed:
                results = list(followed)
        return sorted(results, key=lambda each: each.mark)

    def wait_for_change(self) -> None:
        """Wait until a file of the projects changes."""
        click.echo("waiting for changes; Ctrl-C ends", err=True)
        while _stamps(self._folders) == self._stamps:
            sleep(_LOOK)


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
