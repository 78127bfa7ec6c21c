"""`streamstack validate`: check the files of a project."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
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
    find_files,
    find_root,
    find_settings,
    read_project,
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
    if not sources:
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
    wanted = choose(paths)
    findings: set[Diagnostic] = set()
    sources: dict[str, str] = {}
    for root, chosen in wanted.items():
        checked = read_project(
            root,
            REGISTRY,
            os.environ,
            # Without its variables another database would be asked: the embedded one.
            check_environment=check_environment or ask,
            more=chosen.values(),
        )
        settings = find_settings(root)
        told = {*chosen, *([] if settings is None else [display_name(settings)])}
        found = checked.findings
        wrong = settings is not None and any(
            each.severity == "error" and each.file == display_name(settings) for each in found
        )
        if ask and not wrong:
            found = [*found, *asyncio.run(_ask(checked))]
        findings.update(finding for finding in found if finding.file in told)
        sources.update({name: text for name, text in checked.sources.items() if name in told})
    return sorted(findings), sources


def default_paths() -> tuple[Path, ...]:
    """Return the folder that a command reads without arguments."""
    return (Path("definitions") if Path("definitions").is_dir() else Path(),)


def choose(paths: tuple[Path, ...]) -> dict[Path, dict[str, Path]]:
    """Return the definitions at some paths by the root of their project and their name in messages.

    Raises FileNotFoundError for a path that does not exist.
    """
    wanted: dict[Path, dict[str, Path]] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "there is no such file or folder", str(path))
        files = find_files(path) if path.is_dir() else [path] if _is_definition(path) else []
        wanted.setdefault(find_root(path), {}).update({display_name(file): file for file in files})
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


def _is_definition(path: Path) -> bool:
    """Return whether a file should be checked: a shell's `*` includes tests too."""
    return path.name != SETTINGS and not path.name.endswith((".test.yaml", ".test.yml"))
