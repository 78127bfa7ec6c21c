"""`streamstack openapi`: the OpenAPI document of a project, and how it differs from an earlier one."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import click

from streamstack.cli import CLEAN, FOUND, give_up
from streamstack.cli.validate import default_paths
from streamstack.connections.database import Databases, uses_of
from streamstack.errors import Mark, RunError
from streamstack.functions import REGISTRY
from streamstack.language.findings import WRITERS
from streamstack.language.nodes import plain
from streamstack.language.openapi.changes import compare
from streamstack.language.openapi.document import VERSIONS, Api, make_document
from streamstack.language.project import Checked, find_root, read_project
from streamstack.language.shapes import Shape
from streamstack.language.source import read, write

#: Emissions that are listed by their place.
_LISTED = 20


@click.command(short_help="Print the OpenAPI document.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--version", type=click.Choice(list(VERSIONS)), default="3.2", show_default=True, help="Version of OpenAPI."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["yaml", "json"]),
    help="Output format. Default: that of the suffix of --out, otherwise YAML.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write the document to.")
@click.option(
    "--diff",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare with this earlier document instead of printing the new one.",
)
@click.option("--database", is_flag=True, help="Ask the databases for the types of the columns that are read.")
@click.pass_context
def openapi(
    context: click.Context,
    path: Path | None,
    version: str,
    format_: str | None,
    out: Path | None,
    diff: Path | None,
    *,
    database: bool,
) -> None:
    """Print the OpenAPI document of a project: a folder (`definitions/`, or the current folder).

    Chunks, end markers and responses without a known type are listed on standard error.

    Exit codes: 0 if the document was printed, or --diff found no breaking change, 1 if the project has errors, or
    --diff found breaking changes, 2 if the command could not run.
    """
    api = _make(context, path or default_paths()[0], version, database=database)
    _report_unknown(api)
    if diff is None or out is not None:
        chosen = format_ or ("json" if out is not None and out.suffix == ".json" else "yaml")
        json_text = json.dumps(api.document, indent=2, ensure_ascii=False) + "\n"
        text = json_text if chosen == "json" else write(api.document)
        if out is None:
            click.echo(text, nl=False)
        else:
            out.write_text(text, "utf-8")
    if diff is None:
        return
    changes = compare(_load(context, diff), api.document)
    breaking = [each for each in changes if each.breaking]
    for each in changes:
        click.echo(f"{'breaking' if each.breaking else 'fine'}: {each}")
    click.echo(f"{_count(len(breaking), 'breaking change')}, {_count(len(changes) - len(breaking), 'other')}", err=True)
    context.exit(FOUND if breaking else CLEAN)


def _make(context: click.Context, path: Path, version: str, *, database: bool) -> Api:
    if not path.exists():
        give_up(context, f"{path}: no such file or folder")
    try:
        checked = read_project(find_root(path), REGISTRY, os.environ)
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    errors = [each for each in checked.findings if each.severity == "error"]
    if errors:
        click.echo(WRITERS["text"](errors, checked.sources), nl=False, err=True)
        context.exit(FOUND)
    if not checked.project.endpoints:
        give_up(context, f"no endpoints found in {path}")
    try:
        rows = asyncio.run(_describe_rows(checked)) if database else {}
    except RunError as error:
        give_up(context, error.full)
    return make_document(checked.project, checked.settings, version, rows)


async def _describe_rows(checked: Checked) -> dict[Mark, Shape]:
    """Return the shapes of the rows that the steps of a project read, as its databases describe them."""
    uses = uses_of(checked.project, checked.settings.databases)
    databases = Databases(checked.settings.databases, checked.folder, joins=True)
    try:
        described = [await databases[name].describe(steps) for name, steps in uses.items()]
    finally:
        await databases.aclose()
    return {mark: shape for each in described for mark, shape in each.items()}


def _report_unknown(api: Api) -> None:
    for left_out in api.left_out:
        click.echo(f"the `schema` is left out: {left_out}; `$ref` must be `#` or `#/...`, without `$anchor`", err=True)
    if not api.unknown:
        return
    verb = "has" if len(api.unknown) == 1 else "have"
    message = f"{len(api.unknown)} of {_count(api.emissions, 'emission')} {verb} no known type, or none of some parts:"
    click.echo(message, err=True)
    for each in api.unknown[:_LISTED]:
        click.echo(f"  {each}", err=True)
    if len(api.unknown) > _LISTED:
        click.echo(f"  and {len(api.unknown) - _LISTED} more", err=True)
    click.echo("Declare them under `chunks` or `responseSchema` of the endpoint.", err=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _load(context: click.Context, path: Path) -> dict[str, Any]:
    """Return an earlier document, which is YAML or JSON."""
    try:
        text = path.read_text("utf-8")
        data = json.loads(text) if text.lstrip().startswith("{") else plain(read(text, str(path))[0][0].root)
    except OSError as error:
        give_up(context, f"{path}: {error.strerror}")
    except (ValueError, IndexError):
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("paths"), dict):
        give_up(context, f"{path} is not an OpenAPI document: write one with `streamstack openapi --out {path}`")
    return data
