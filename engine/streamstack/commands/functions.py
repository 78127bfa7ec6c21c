"""`streamstack functions`: the reference in the terminal."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from streamstack.functions import FAMILIES, REGISTRY
from streamstack.language.reference import markdown_of, reference
from streamstack.language.suggest import did_you_mean


@click.command(short_help="Show the functions of the language.")
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Write Markdown instead of drawing.")
def functions(name: str | None, *, markdown: bool) -> None:
    """Show the functions of the language, or one of them at length."""
    if name is None:
        if markdown:
            click.echo(reference(FAMILIES), nl=False)
        else:
            Console().print(_overview())
        return
    function = REGISTRY.get(name)
    if function is None:
        raise click.UsageError(f"there is no function `{name}`{did_you_mean(name, REGISTRY)}")
    text = markdown_of(function, "##")
    if markdown:
        click.echo(text)
    else:
        Console().print(Markdown(text))


def _overview() -> Table:
    """Draw every function with the first line of its documentation."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for title, declared in FAMILIES.items():
        if table.row_count:
            table.add_row("", "")
        table.add_row(f"[underline]{title}[/]", "")
        for function in declared:
            table.add_row(function.name, function.summary)
    return table
