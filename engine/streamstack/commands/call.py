"""`streamstack call`: asks an endpoint and shows each chunk as it comes, with its time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Final

import click
import structlog

from streamstack.commands.answers import Part, problem_lines, reader_for, shown
from streamstack.commands.asking import Answer, Question, UnreachableError, ask
from streamstack.commands.bodies import UnreadableError
from streamstack.commands.timing import Timing
from streamstack.functions import REGISTRY
from streamstack.language.masking import mask
from streamstack.language.project import find_root, read_project
from streamstack.language.report import WRITERS
from streamstack.server.databases import DatabaseError
from streamstack.server.endpoints import UnservableError
from streamstack.server.local import serving_locally

#: Exit codes: the answer came whole, it is an error or was cut short, there was none.
WELL, FAILED, UNASKED = 0, 1, 2

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class _UnaskedError(click.ClickException):
    """There is no answer to show."""

    exit_code = UNASKED


@click.command()
@click.argument("method", type=click.Choice(_METHODS, case_sensitive=False), metavar="METHOD")
@click.argument("path")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input; again for each item of a list; a.b=c for a property; name=@file sends a file.",
)
@click.option(
    "--json",
    "json_file",
    type=click.File("rb"),
    help="A file with the JSON body, - for standard input; -i then go to the query.",
)
@click.option("--url", help="The address of a server, as http://localhost:8080.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, path_type=Path),
    help="The project to serve where there is no --url.  [default: definitions, or here]",
)
@click.option("--timeout", type=float, help="Seconds to wait for each next piece of the answer.")
@click.pass_context
def call(  # noqa: PLR0913
    context: click.Context,
    method: str,
    path: str,
    *,
    inputs: tuple[str, ...],
    json_file: BinaryIO | None,
    url: str | None,
    headers: tuple[str, ...],
    directory: Path | None,
    timeout: float | None,
) -> None:
    """Call an endpoint and show each chunk as it comes, with the milliseconds since the call.

    Without --url the project itself is served for the call. Then come the times: to the first
    chunk, between chunks, in all.

    Exits with 0 for an answer that came whole, 1 for an error or an answer cut short, 2 when
    nothing could be asked.
    """
    try:
        question = Question.of(method, path, inputs, json_file, headers)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with _server(url, directory) as address:
        try:
            with ask(address, question, timeout) as answer:
                code = _show(answer, inputs)
        except (UnreachableError, UnreadableError) as error:
            raise _UnaskedError(str(error)) from None
    context.exit(code)


@contextmanager
def _server(url: str | None, directory: Path | None) -> Iterator[str]:
    """Give the address to ask: the one that is named, else that of the project, served for now."""
    if url is not None:
        yield url
        return
    folder = directory or (Path("definitions") if Path("definitions").is_dir() else Path())
    checked = read_project(find_root(folder), REGISTRY, os.environ, check_environment=True)
    errors = [finding for finding in checked.findings if finding.severity == "error"]
    if errors:
        click.echo(WRITERS["text"](errors, checked.sources), nl=False, err=True)
        raise _UnaskedError("the project can't be served; see `streamstack validate`")
    try:
        with _log_aside(), serving_locally(checked, checked.environment) as address:
            yield address
    except (DatabaseError, UnservableError) as error:
        raise _UnaskedError(str(error)) from None


def _drop_refusals(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Pass over what the answer itself tells, place included."""
    if event.get("event") in ("run-refused", "request"):
        raise structlog.DropEvent
    return event


@contextmanager
def _log_aside() -> Iterator[None]:
    """Write the log of the project to the standard error, apart from the chunks."""
    before = structlog.get_config()
    structlog.configure(
        processors=[
            _drop_refusals,
            structlog.processors.add_log_level,
            # Tracebacks without the values of variables, and nothing with a secret in it.
            structlog.processors.format_exc_info,
            mask,
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _show(answer: Answer, inputs: tuple[str, ...] = ()) -> int:
    """Show an answer as it comes, then its times. Return the exit code."""
    click.echo(_title(answer), err=True)
    if answer.status >= 400:
        lines = list(problem_lines(answer.rest()))
        for line in lines:
            click.echo(line, err=True)
        if any("must be a file" in line for line in lines):
            _hint_at_files(inputs)
        return FAILED
    timing = Timing(answer.asked)
    reader = reader_for(answer.content_type)
    failed = False
    for piece in answer.pieces():
        now = perf_counter()
        for part in reader.feed(piece):
            failed |= _show_part(part, timing, now)
        timing.bytes += len(piece)
    now = perf_counter()
    for part in reader.close():
        failed |= _show_part(part, timing, now)
    timing.end = now
    if answer.broken:
        click.echo(f"the answer was cut short: {answer.broken}", err=True)
    for line in timing.lines():
        click.echo(line, err=True)
    return FAILED if failed or answer.broken else WELL


def _hint_at_files(inputs: tuple[str, ...]) -> None:
    """Say how a file itself is sent, where its name was."""
    for given in inputs:
        name, _, value = given.partition("=")
        if value and Path(value).is_file():
            click.echo(f"hint: to send the file itself, write -i {name}=@{value}", err=True)


def _show_part(part: Part, timing: Timing, now: float) -> bool:
    """Show one part; return whether it is an error."""
    if part.kind == "chunk":
        timing.chunk(now)
    label = part.event or ("" if part.kind == "chunk" else part.kind)
    words = [f"{timing.offset(now):>9}", *([label] if label else []), shown(part)]
    click.echo("  ".join(words), err=part.kind == "error")
    sys.stdout.flush()
    return part.kind == "error"


def _title(answer: Answer) -> str:
    words = [f"{answer.status} {answer.reason}".strip(), answer.content_type]
    run = answer.header("X-Run-Id")
    return " · ".join(word for word in [*words, f"run {run}" if run else ""] if word)
