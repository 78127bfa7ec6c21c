"""`streamstack graph` and `streamstack show`: the definitions of a file as a diagram, and as Python code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streamstack.cli import FOUND, give_up
from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.definition import Definition, Endpoint, Project
from streamstack.language.findings import WRITERS
from streamstack.language.graph import Graph
from streamstack.language.names import did_you_mean
from streamstack.language.pictures import mermaid, svg
from streamstack.language.project import display_name, find_root, read_project
from streamstack.runtime.plan import listing

Command = TypeVar("Command", bound=Callable[..., Any])


def definition_options(command: Command) -> Command:
    """Add the parameters that choose definitions: a file, and one definition in it."""
    command = click.argument("file", type=click.Path(path_type=Path))(command)
    return click.option(
        "--endpoint", help="Only this definition of the file: `GET /path`, a path, or the name of a function or task."
    )(command)


@click.command(short_help="Draw the step graph of a definition.")
@definition_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["mermaid", "svg"]),
    default="mermaid",
    show_default=True,
    help="Mermaid flowchart (rendered by GitHub and many editors), or SVG image.",
)
@click.pass_context
def graph(context: click.Context, file: Path, format_: str, endpoint: str | None) -> None:
    """Print the step graph of the definitions in a file: the order of the steps and their dependencies.

    Exit codes: 0 if the graph was printed, 1 if the file has errors, 2 if the command could not run.
    """
    _, chosen = read_definitions(context, file, endpoint)
    write = svg if format_ == "svg" else mermaid
    click.echo(write([Graph(definition) for definition in chosen]), nl=False)


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


def read_definitions(context: click.Context, file: Path, wanted: str | None) -> tuple[Project, list[Definition]]:
    """Read the definitions of a file, with the project around it; ``wanted`` chooses one.

    Ends the command with 1 where the file has errors, with 2 where there is nothing to read.
    """
    if not file.is_file():
        give_up(context, f"{file}: no such file")
    try:
        checked = read_project(find_root(file), REGISTRY, os.environ, more=[file])
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    name = display_name(file)
    errors: list[Diagnostic] = [each for each in checked.findings if each.file == name and each.severity == "error"]
    if errors:
        click.echo(WRITERS["text"](errors, checked.sources), nl=False, err=True)
        context.exit(FOUND)
    project = checked.project
    every: list[Definition] = [*project.endpoints, *project.functions.values(), *project.tasks]
    inside = sorted((each for each in every if each.mark.file == name), key=lambda each: each.mark)
    chosen = [each for each in inside if wanted is None or wanted in _names(each)]
    if not inside:
        give_up(context, f"{file}: no definition of this file is served")
    if not chosen:
        names = [each.title for each in inside]
        near = did_you_mean(str(wanted), [name for each in inside for name in _names(each)])
        give_up(context, f"{file} has no `{wanted}`{near}; it has {', '.join(names)}")
    return project, chosen


def _names(definition: Definition) -> tuple[str, ...]:
    """Return how a definition may be named in `--endpoint`."""
    if isinstance(definition, Endpoint):
        return definition.title, definition.path
    return definition.title, definition.name
