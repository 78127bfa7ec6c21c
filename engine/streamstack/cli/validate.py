"""`streamstack validate` and `streamstack fix`: check the files of a project, and correct what is certain."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final

import click

from streamstack.cli import CLEAN, FIRST_FILE, FOUND, give_up
from streamstack.connections.database import Databases, uses_of
from streamstack.errors import Diagnostic, Replacement, RunError
from streamstack.functions import REGISTRY
from streamstack.language.findings import WRITERS, summarise
from streamstack.language.project import (
    SETTINGS,
    Checked,
    check_again,
    display_name,
    find_root,
    find_settings,
    find_tests,
    is_test,
    read_project,
    read_tests,
)
from streamstack.language.rewriting import apply


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
        findings, sources = _check(chosen, check_environment=env, databases=database)
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


def _check(
    paths: tuple[Path, ...], *, check_environment: bool, databases: bool
) -> tuple[list[Diagnostic], dict[str, str]]:
    """Check the projects that the paths belong to, and return the findings in these paths.

    A file is checked together with its whole project, whose functions it may call. With ``databases`` the databases
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
            check_environment=check_environment or databases,
            more=chosen.files,
            folders=chosen.folders,
        )
        settings = find_settings(root)
        found = checked.findings
        wrong = settings is not None and any(
            each.severity == "error" and each.file == display_name(settings) for each in found
        )
        if databases and not wrong:
            found = [*found, *asyncio.run(_check_databases(checked))]
        reported = chosen.among({*checked.sources, *(each.file for each in found)})
        reported |= set() if settings is None else {display_name(settings)}
        _, wrong_tests, texts = read_tests(checked, chosen.all_tests(checked))
        findings.update(finding for finding in found if finding.file in reported)
        findings.update(wrong_tests)
        sources.update({name: text for name, text in checked.sources.items() if name in reported} | texts)
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
    here = Path.cwd()
    for path in {os.path.normpath(here / path): path for path in reversed([*paths])}.values():
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        chosen = wanted.setdefault(Path(os.path.normpath(here / find_root(path))), Chosen())
        if path.is_dir():
            chosen.folders.append(path)
        elif is_test(path):
            chosen.tests.append(path)
        elif path.name != SETTINGS:
            chosen.files.append(path)
    return wanted


async def _check_databases(checked: Checked) -> list[Diagnostic]:
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


#: Rounds, since a value can be read only once its quotes are there; checks of a round whose corrections don't all hold.
_ROUNDS: Final = 10
_CHECKS: Final = 200

#: Returns the findings of a project, given its texts by file.
Check = Callable[[Mapping[str, str]], list[Diagnostic]]


def correct(texts: Mapping[str, str], check: Check, chosen: Iterable[str]) -> tuple[dict[str, str], list[Diagnostic]]:
    """Correct what is certain, and return the texts of the chosen files that have changed, with the findings left.

    Each correction is checked: a text is changed only where it has fewer findings then, and no other text has more.
    """
    chosen = set(chosen)
    now, found = dict(texts), check(texts)
    for _ in range(_ROUNDS):
        edits = [(each.file, each.replacement) for each in found if each.replacement and each.file in chosen]
        tried, after = _try(now, edits, found, check)
        if tried is None:
            # One of them does not hold: each by itself, the last first, so that the places of the others stay.
            tried, after = now, found
            for edit in sorted(edits, key=lambda one: (one[1].line, one[1].column), reverse=True)[:_CHECKS]:
                better, less = _try(tried, [edit], after, check)
                if better is not None:
                    tried, after = better, less
        if tried == now:
            break
        now, found = tried, after
    return {file: text for file, text in now.items() if text != texts[file]}, found


def _try(
    texts: dict[str, str], edits: list[tuple[str, Replacement]], found: list[Diagnostic], check: Check
) -> tuple[dict[str, str] | None, list[Diagnostic]]:
    """Return the texts with some edits and their findings; None for the texts if that does not improve them."""
    by_file: dict[str, list[Replacement]] = {}
    for file, edit in edits:
        by_file.setdefault(file, []).append(edit)
    trial = texts | {file: apply(texts[file], each) for file, each in by_file.items()}
    changed = {file for file in by_file if trial[file] != texts[file]}
    if not changed:
        return None, found
    after = check(trial)
    before, now = _weigh(found), _weigh(after)
    fewer = all(now[file] < before[file] for file in changed)
    return (trial, after) if fewer and all(now[file] <= before[file] for file in now) else (None, found)


def _weigh(found: list[Diagnostic]) -> Counter[str]:
    """Return how bad the findings of each file are: an error outweighs all warnings that it may have hidden."""
    weights: Counter[str] = Counter()
    for each in found:
        weights[each.file] += 10_000 if each.severity == "error" else 1
    return weights


#: What `patch` and `git apply` read where a file does not end with a line break.
_NO_END: Final = "\n\\ No newline at end of file\n"


@click.command(short_help="Correct what is certain in definitions.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--diff", is_flag=True, help="Show the changes, and write nothing.")
@click.pass_context
def fix(context: click.Context, paths: tuple[Path, ...], *, diff: bool) -> None:
    """Correct definitions: files, or all in folders (`definitions/`, or the current folder).

    Written are the quotes that bindings need, misspelt names with a single near one, and the words of other tools
    that have an exact counterpart. Comments and layout stay. A file is changed only if it has fewer findings then.

    Exit codes: 0 if no errors are left, 1 if there are errors (with --diff: if a file would change), 2 if the
    command could not run.
    """
    chosen = paths or default_paths()
    changes: dict[Path, tuple[str, str]] = {}
    remaining, count = [], 0
    try:
        for root, selected in choose(chosen).items():
            checked = read_project(root, REGISTRY, os.environ, more=selected.files, folders=selected.folders)
            tests = read_tests(checked, selected.all_tests(checked))[2]
            files = {name: Path(name) for name in (*selected.among(checked.sources), *tests)}
            settings = find_settings(root)
            if settings is not None and selected.folders:
                files[display_name(settings)] = settings
            sources = {**checked.sources, **tests}
            texts, findings = correct(sources, partial(check_again, checked), files)
            changes.update({files[name]: (sources[name], text) for name, text in texts.items()})
            remaining += [each for each in findings if each.file in files]
            count += len(files)
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    if not count:
        give_up(context, f"no definitions found in {', '.join(map(str, chosen))}\n\n{FIRST_FILE}")
    for path, (before, after) in sorted(changes.items()):
        name = display_name(path)
        if diff:
            lines = unified_diff(list(StringIO(before)), list(StringIO(after)), name, name)
            click.echo("".join(each if each.endswith("\n") else f"{each}{_NO_END}" for each in lines), nl=False)
        else:
            try:
                path.write_bytes(after.encode())
            except OSError as error:
                give_up(context, f"{error.filename}: {error.strerror}")
            click.echo(f"{name}: corrected")
    click.echo(f"{len(changes)} of {count} file{'' if count == 1 else 's'} {'would be ' * diff}changed", err=True)
    if remaining:
        click.echo(f"left: {summarise(remaining, count)}; see `streamstack validate`", err=True)
    failed = bool(changes) if diff else any(each.severity == "error" for each in remaining)
    context.exit(FOUND if failed else CLEAN)
