"""`streamstack validate`: check the files of a project."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click

from streamstack.cli import CLEAN, FIRST_FILE, FOUND, give_up
from streamstack.connections.database import Databases, uses_of
from streamstack.errors import Diagnostic, RunError
from streamstack.functions import REGISTRY
from streamstack.language.findings import WRITERS, summarise
from streamstack.language.project import (
    SETTINGS,
    Checked,
    display_name,
    find_root,
    find_settings,
    find_tests,
    is_test,
    read_project,
    read_tests,
)


@click.command(short_help="Check definitions for errors.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(WRITERS)),
    default="text",
    show_default=True,
    help="Output format of the findings.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option("--env", is_flag=True, help="Report environment variables that are not set.")
@click.option("--database", is_flag=True, help="Also check tables, columns and statements against the databases.")
@click.pass_context
def validate(
    context: click.Context, paths: tuple[Path, ...], format_: str, *, strict: bool, env: bool, database: bool
) -> None:
    """Check definitions: files, or all in folders (`definitions/`, or the current folder).

    With --database, the tables and columns in the definitions are looked up, and the statements prepared,
    without changing anything.

    Exit codes: 0 if there are no problems, 1 if there are findings, 2 if the command could not run.
    """
    atexit.register(gc.freeze)  # looking for cycles is needless in a process that ends
    chosen = paths or default_paths()
    try:
        findings, sources = _check(chosen, check_environment=env, ask=database)
    except RunError as error:
        give_up(context, error.full)
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    if not sources and not findings:
        give_up(context, f"no definitions found in {', '.join(map(str, chosen))}\n\n{FIRST_FILE}")
    click.echo(WRITERS[format_](findings, sources), nl=False)
    if format_ in ("text", "github"):
        click.echo(summarise(findings, len(sources)), err=True)
    failing = [finding for finding in findings if strict or finding.severity == "error"]
    context.exit(FOUND if failing else CLEAN)


def _check(paths: tuple[Path, ...], *, check_environment: bool, ask: bool) -> tuple[list[Diagnostic], dict[str, str]]:
    """Check the projects that the paths belong to, and return the findings in these paths.

    A file is checked together with its whole project, whose functions it may call. With ``ask`` the databases
    are checked too. Raises RunError ``database`` for one that is unreachable.
    """
    findings: set[Diagnostic] = set()
    sources: dict[str, str] = {}
    for root, chosen in choose(paths).items():
        checked = read_project(
            root,
            REGISTRY,
            os.environ,
            # Without its variables another database would be asked: the embedded one.
            check_environment=check_environment or ask,
            more=chosen.files,
            folders=chosen.folders,
        )
        settings = find_settings(root)
        found = checked.findings
        wrong = settings is not None and any(
            each.severity == "error" and each.file == display_name(settings) for each in found
        )
        if ask and not wrong:
            found = [*found, *asyncio.run(_ask(checked))]
        told = chosen.among({*checked.sources, *(each.file for each in found)})
        told |= set() if settings is None else {display_name(settings)}
        _, wrong_tests, texts = read_tests(checked, chosen.all_tests(checked))
        findings.update(finding for finding in found if finding.file in told)
        findings.update(wrong_tests)
        sources.update({name: text for name, text in checked.sources.items() if name in told} | texts)
    return sorted(findings), sources


def default_paths() -> tuple[Path, ...]:
    """Return the folder that a command reads without arguments."""
    return (Path("definitions") if Path("definitions").is_dir() else Path(),)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files and folders of one project that a command was given."""

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    tests: list[Path] = field(default_factory=list)

    def all_tests(self, checked: Checked) -> list[Path]:
        """Return the tests that are chosen or lie in a chosen folder, without those that the settings ignore."""
        inside = [each for folder in self.folders for each in find_tests(folder) if not checked.ignores(each)]
        return [*self.tests, *inside]

    def among(self, names: Iterable[str]) -> set[str]:
        """Return those files, by the names that findings carry, that are chosen or lie in a chosen folder."""
        here = Path.cwd()
        tops = [os.path.normpath(here / folder) for folder in self.folders]
        named = {display_name(file) for file in self.files}
        return {name for name in names if name in named or any((here / name).is_relative_to(top) for top in tops)}


def choose(paths: Iterable[Path]) -> dict[Path, Chosen]:
    """Sort files and folders by the root of their project.

    Raises FileNotFoundError for a path that does not exist.
    """
    wanted: dict[Path, Chosen] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        chosen = wanted.setdefault(find_root(path), Chosen())
        if path.is_dir():
            chosen.folders.append(path)
        elif is_test(path):
            chosen.tests.append(path)
        elif path.name != SETTINGS:
            chosen.files.append(path)
    return wanted


async def _ask(checked: Checked) -> list[Diagnostic]:
    """Return the findings of the databases for a project's definitions, except those that already have errors."""
    settings = checked.settings.databases
    uses = uses_of(checked.project, settings)
    if not uses:
        return []
    databases = Databases(settings, checked.folder, joins=True)
    try:
        return [finding for name, steps in uses.items() for finding in await databases[name].check(steps)]
    finally:
        await databases.aclose()
