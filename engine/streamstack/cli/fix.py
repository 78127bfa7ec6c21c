"""`streamstack fix`: correct what is certain in the files of a project."""

from __future__ import annotations

import os
from difflib import unified_diff
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final

import click

from streamstack.cli import CLEAN, FIRST_FILE, FOUND, give_up
from streamstack.cli.validate import choose, default_paths
from streamstack.functions import REGISTRY
from streamstack.language.findings import summarise
from streamstack.language.fixes import correct
from streamstack.language.project import check_again, display_name, find_settings, read_project, read_tests

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
    left, count = [], 0
    try:
        for root, given in choose(chosen).items():
            checked = read_project(root, REGISTRY, os.environ, more=given.files, folders=given.folders)
            tests = read_tests(checked, given.all_tests(checked))[2]
            files = {name: Path(name) for name in (*given.among(checked.sources), *tests)}
            settings = find_settings(root)
            if settings is not None and given.folders:
                files[display_name(settings)] = settings
            sources = {**checked.sources, **tests}
            texts, findings = correct(sources, partial(check_again, checked, REGISTRY), files)
            changes.update({files[name]: (sources[name], text) for name, text in texts.items()})
            left += [each for each in findings if each.file in files]
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
    if left:
        click.echo(f"left: {summarise(left, count)}; see `streamstack validate`", err=True)
    failed = bool(changes) if diff else any(each.severity == "error" for each in left)
    context.exit(FOUND if failed else CLEAN)
