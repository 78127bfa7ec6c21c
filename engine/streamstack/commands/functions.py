"""`streamstack functions`: the reference in the terminal."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from streamstack.functions import FAMILIES, REGISTRY
from streamstack.language.reference import markdown_of, reference
from streamstack.language.reference_expressions import (
    chapters,
    find_operations,
    markdown_of_operation,
)
from streamstack.language.suggest import did_you_mean


@click.command(short_help="Show the functions of the language, and the filters of expressions.")
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Write Markdown instead of drawing.")
def functions(name: str | None, *, markdown: bool) -> None:
    """Show the functions of the language and the filters of expressions, or one of them at length."""
    if name is None:
        if markdown:
            click.echo(reference(FAMILIES), nl=False)
        else:
            Console().print(_overview())
        return
    text = _text_of(name)
    if markdown:
        click.echo(text)
    else:
        Console().print(Markdown(text))


def _text_of(name: str) -> str:
    """Return the documentation of what has a name, in Markdown."""
    found = [markdown_of(REGISTRY[name], "##")] if name in REGISTRY else []
    found += [markdown_of_operation(each, "##") for each in find_operations(name)]
    if not found:
        names = [*REGISTRY, *(each.name for family in chapters().values() for each in family)]
        raise click.UsageError(
            f"there is no function or filter `{name}`{did_you_mean(name, names)}"
        )
    return "\n\n".join(found)


def _overview() -> Table:
    """Draw every function with the first line of its documentation, then the names of the filters."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for title, declared in FAMILIES.items():
        if table.row_count:
            table.add_row("", "")
        table.add_row(f"[underline]{title}[/]", "")
        for function in declared:
            table.add_row(function.name, function.summary)
    table.add_row("", "")
    table.add_row("[underline]In expressions[/]", "")
    for title, operations in chapters().items():
        table.add_row(title, ", ".join(each.name for each in operations))
    return table
