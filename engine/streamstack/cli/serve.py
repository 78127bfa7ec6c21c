"""`streamstack serve`: serve the endpoints of a project."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
import structlog

from streamstack.cli import FIRST_FILE, FOUND, give_up
from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.findings import write_text
from streamstack.language.masking import mask, masked
from streamstack.language.project import Checked, read_project
from streamstack.language.settings import LogSettings
from streamstack.language.values import to_json
from streamstack.server.context import AuthenticationError, DatabaseError
from streamstack.server.endpoints import UnservableError
from streamstack.server.reloading import first_edition, unshared
from streamstack.server.serve import ServeOptions
from streamstack.server.serve import serve as serve_alone
from streamstack.server.signals import Early
from streamstack.server.sockets import AddressError, ServerTls, TlsError, is_loopback
from streamstack.server.supervisor import Supervisor, SupervisorError


@click.command(short_help="Start the server.")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--host", help="Address to listen on.  [default: server.host, or 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any free port.  [default: server.port, or 8080]",
)
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="Number of worker processes.  [default: server.workers, or 1]"
)
@click.option("--reload", is_flag=True, help="Reload files when they change.")
@click.option("--dev", is_flag=True, help="Development mode: include the location and reason of errors in responses.")
@click.pass_context
def serve(
    context: click.Context,
    directory: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    *,
    reload: bool,
    dev: bool,
) -> None:
    """Serve the endpoints defined in a folder (`definitions/`, or the current folder).

    The definitions are validated first. Errors prevent the server from starting, warnings do not. SIGTERM or
    Ctrl-C starts a graceful shutdown: running streams have `server.shutdownTimeout` to finish. SIGHUP reloads
    changed files.
    """
    folder = directory or (Path("definitions") if Path("definitions").is_dir() else Path())
    if not folder.is_dir():
        give_up(context, f"no such folder: {folder}")

    def read() -> Checked:
        return read_project(folder, REGISTRY, os.environ, check_environment=True)

    try:
        checked = read()
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    if checked.findings:
        click.echo(write_text(checked.findings, checked.sources), err=True, nl=False)
    if checked.failed:
        give_up(context, f"not served: {checked.advice}", FOUND)
    if not (checked.project.endpoints or checked.project.tasks):
        if checked.sources:
            give_up(context, f"no endpoints found in {folder}")
        give_up(context, f"no definitions found in {folder}\n\n{FIRST_FILE}")
    configure_log(checked.settings.log)
    server = checked.settings.server
    address = host if host is not None else server.host
    if dev and not is_loopback(address):
        _announce(
            f"--dev on {address} exposes the internals of the project to everyone who can reach it: "
            "serve without --dev, or on 127.0.0.1"
        )
    count = workers if workers is not None else server.workers
    if count > 1:
        _check_sharing(context, checked)
    try:
        task = ServeOptions(
            edition=first_edition(checked, dev=dev),
            host=address,
            port=port if port is not None else server.port,
            announce=_announce,
            read=read,
            dev=dev,
            reload=reload,
            early=context.find_object(Early) or Early(),
            tls=None if server.tls is None else ServerTls(server.tls),
        )
        if count > 1:
            Supervisor(task, count).run()
        else:
            serve_alone(task)
    except (AddressError, AuthenticationError, DatabaseError, SupervisorError, TlsError, UnservableError) as error:
        give_up(context, str(error))
    # All is closed. Only threads may be left that look names up, for which the interpreter would wait.
    sys.stderr.flush()
    os._exit(0)


def _check_sharing(context: click.Context, checked: Checked) -> None:
    """Report what several workers do not share; exit if they can't work without it."""
    if not hasattr(os, "fork"):
        give_up(context, "several workers need a system that can fork: remove --workers")
    refused, warned = unshared(checked)
    for each in (*refused, *warned):
        _announce(each)
    if refused:
        give_up(context, "not served: fix the above first", FOUND)


def _announce(line: str) -> None:
    click.echo(masked(line), err=True)


def _log_line(entry: dict[str, Any], **_: Any) -> str:
    """Return a line of the log; what an author logs is written as the language writes it."""
    try:
        return to_json(entry).decode()
    except RunError:
        return json.dumps(entry, default=repr)


def configure_log(settings: LogSettings) -> None:
    """Configure the log on standard error, according to the settings."""
    people = settings.is_text(sys.stderr)
    shape: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if people
        else structlog.processors.JSONRenderer(serializer=_log_line)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not people),
            # Tracebacks without the values of variables, and nothing with a secret in it.
            structlog.processors.format_exc_info,
            mask,
            shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]  # before 25.1 it knows no names
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
