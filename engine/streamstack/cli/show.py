"""`streamstack show`: the Python code that a definition is compiled to."""

from __future__ import annotations

from pathlib import Path

import click

from streamstack.cli.graph import definition_options, read_definitions
from streamstack.runtime.plan import listing


@click.command(short_help="Show the Python code that a definition is compiled to.")
@definition_options
@click.option("--python", is_flag=True, required=True, help="Show the generated Python code.")
@click.pass_context
def show(context: click.Context, file: Path, endpoint: str | None, *, python: bool) -> None:
    """Print what the definitions of a file are compiled to.

    With --python, print the Python function of the steps, with the file and line of each step. Use it to
    understand a traceback, to see when each value is computed, or to report a bug.

    Exit codes: 0 if the code was printed, 1 if the file has errors, 2 if the command could not run.
    """
    project, chosen = read_definitions(context, file, endpoint)
    click.echo("\n".join(listing(definition, project) for definition in chosen), nl=False)
