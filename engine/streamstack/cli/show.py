"""`streamstack show`: the function that a stack becomes."""

from __future__ import annotations

from pathlib import Path

import click

from streamstack.cli.graph import definition_options, read_definitions
from streamstack.runtime.plan import listing


@click.command(short_help="Show the Python that a definition becomes.")
@definition_options
@click.option("--python", is_flag=True, required=True, help="Show the generated Python.")
@click.pass_context
def show(context: click.Context, file: Path, endpoint: str | None, *, python: bool) -> None:
    """Print what the definitions of a file become when they are served.

    With --python it is the function that is compiled from the steps, with the file and line of each step. It is for
    reading: to understand a trace, to see what is computed when, or to report a bug.

    Exits with 0 when it was printed, 1 when the file has errors, 2 when it could not run.
    """
    project, chosen = read_definitions(context, file, endpoint)
    click.echo("\n".join(listing(definition, project) for definition in chosen), nl=False)
