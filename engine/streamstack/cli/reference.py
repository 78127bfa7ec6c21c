"""`streamstack functions` and `streamstack schema`: the language reference, for people and for editors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from streamstack.functions import FAMILIES, REGISTRY
from streamstack.language.definition import Function, Registry
from streamstack.language.names import did_you_mean
from streamstack.language.project import read_registry
from streamstack.language.reference import (
    OPERATIONS,
    expressions_reference,
    find_operations,
    markdown_of,
    markdown_of_operation,
    reference,
)
from streamstack.language.schema import make_schemas


@click.command(short_help="Show the reference of functions, filters and tests.")
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print Markdown instead of formatted text.")
def functions(name: str | None, *, markdown: bool) -> None:
    """List the functions, filters and tests of the language, or show the reference of one of them.

    Those that the plug-ins of the project in the current folder declare are among them.
    """
    registry = read_registry(Path(), REGISTRY)
    own = tuple(each for each in registry.values() if each.plugin)
    families = {**FAMILIES, "Plug-ins": own} if own else FAMILIES
    if name is None:
        if markdown:
            click.echo(f"{reference(families)}\n{expressions_reference()}", nl=False)
        else:
            Console().print(_overview(families), highlight=False)
        return
    text = "\n\n".join(_found(name, registry))
    if not text:
        names = [*registry, *(each for operations in OPERATIONS.values() for each in operations)]
        raise click.UsageError(f"unknown function `{name}`{did_you_mean(name, names)}")
    if markdown:
        click.echo(text)
    else:
        Console().print(Markdown(text))


def _found(name: str, registry: Registry) -> Iterable[str]:
    """Yield the documentation of all that has a name: a function and a filter may share it."""
    if name in registry:
        yield markdown_of(registry[name], "##")
    for operation in find_operations(name):
        yield markdown_of_operation(operation, "##")


def _overview(families: Mapping[str, Iterable[Function]]) -> Table:
    """Draw every function with the first line of its documentation, then the names of the rest."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for title, declared in families.items():
        _add_title(table, title)
        for function in declared:
            table.add_row(function.name, function.summary)
    for title, operations in OPERATIONS.items():
        _add_title(table, title)
        for name in sorted(operations, key=str.lower):
            summary = operations[name].summary.partition(". ")[0].rstrip(".")
            table.add_row(name, f"{summary}.")
    return table


def _add_title(table: Table, title: str) -> None:
    if table.row_count:
        table.add_row("", "")
    table.add_row(f"[underline]{title}[/]", "")


@click.command(short_help="Print the JSON Schemas for editors.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write all schemas to, instead of printing one.",
)
@click.argument("name", default="streamstack")
def schema(name: str, out: Path | None) -> None:
    """Print the JSON Schema of definitions for editors (or of `endpoint`, `settings`, `test`...).

    The functions that the plug-ins of the project in the current folder declare are in it.
    """
    registry = read_registry(Path(), REGISTRY)
    schemas = {file: schema_text(content) for file, content in make_schemas(registry).items()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in schemas.items():
            (out / file).write_text(text, "utf-8")
        click.echo(f"{len(schemas)} schemas in {out}")
        return
    file = f"{name}.schema.json"
    if file not in schemas:
        names = ", ".join(each.removesuffix(".schema.json") for each in schemas)
        raise click.UsageError(f"unknown schema `{name}`; there are {names}")
    click.echo(schemas[file], nl=False)


def schema_text(schema: Mapping[str, Any]) -> str:
    """Return a JSON Schema as the text of its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
