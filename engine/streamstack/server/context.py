"""What a process opens for its runs: databases, the client to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from streamstack.connections.database import uses_of
from streamstack.connections.database.embedded import Embedded
from streamstack.errors import Diagnostic, RunError
from streamstack.functions.db import open_databases
from streamstack.functions.security import open_callers
from streamstack.language.authentication import Jwt
from streamstack.language.definition import Project
from streamstack.language.masking import learn
from streamstack.language.project import Checked
from streamstack.language.settings import Settings
from streamstack.runtime.run import Context
from streamstack.server.replies import log


def make_context(
    checked: Checked,
    environment: Mapping[str, str],
    *,
    dev: bool,
    joins: bool = False,
    starts: bool = True,
    folder: Path | None = None,
) -> Context:
    """Return the context of a project's runs.

    ``joins``: its embedded database may be one that another process runs; it always is without ``starts``.
    ``folder`` takes the place of `.streamstack`.
    """
    settings = checked.settings
    learn(environment, secrets_of(settings))
    return Context(
        env=environment,
        settings=settings.settings,
        dev=dev,
        models=settings.models,
        http=settings.http,
        state=settings.state,
        jobs=settings.jobs,
        email=settings.email,
        channels=settings.channels,
        databases=settings.databases,
        authentication=settings.authentication,
        folder=folder or checked.folder,
        joins=joins,
        starts=starts,
    )


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield the secrets in settings, which the log must not show."""
    for model in settings.models.values():
        yield model.api_key or ""
        yield model.base_url or ""
    for database in settings.databases.values():
        yield database.url or ""
    for method in settings.authentication.values():
        if isinstance(method, Jwt):
            yield method.secret or ""
    for alert in settings.alerts:
        if alert.send.webhook is not None:
            yield alert.send.webhook.secret or ""
    if settings.state.redis is not None:
        yield settings.state.redis.password or ""
    if settings.email.server is not None:
        yield settings.email.server.password or ""


#: Seconds that a worker waits for its databases before it takes requests all the same.
WARM_WITHIN = 5.0


class DatabaseError(Exception):
    """A database that no waiting would mend."""


async def prepare_databases(project: Project, context: Context, announce: Callable[[str], None]) -> list[Diagnostic]:
    """Connect to the databases that definitions use, run their setup, and report what they lack.

    ``announce`` receives a message about an unreachable database, which may be there when it is needed.
    Raises DatabaseError where waiting would not help: the embedded server can't start, or a setup file fails.
    """
    uses = uses_of(project, context.databases)
    if not uses:
        return []
    databases = context.resource(open_databases)
    found: list[Diagnostic] = []
    for name, steps in uses.items():
        try:
            was_open = databases[name].is_open
            await databases[name].open()
            if was_open and databases[name].settings.setup:
                await databases[name].set_up()  # the files are reloaded
            found += await databases[name].check(steps)
        except RunError as error:
            if error.final:
                raise DatabaseError(error.full) from error
            announce(f"{error.full}; it is tried again when it is needed")
    return found


async def warm_databases(project: Project, context: Context) -> None:
    """Connect to the databases that definitions use, where that is soon done."""
    databases = context.resource(open_databases)
    with suppress(TimeoutError):
        async with asyncio.timeout(WARM_WITHIN):
            for name in uses_of(project, context.databases):
                try:
                    await databases[name].open()
                except Exception as error:  # noqa: BLE001  (it is reported, and tried again, when it is needed)
                    log.info("database-not-ready", database=name, reason=str(error))


def embedded_of(project: Project, context: Context) -> Embedded | None:
    """Return the embedded server that the definitions need, not started yet; None where they need none."""
    for name in uses_of(project, context.databases):
        settings = context.databases[name]
        if settings.url is None:
            return Embedded(context.folder, bin_folder=settings.bin)
    return None


class AuthenticationError(Exception):
    """An authentication that no client could ever pass."""


def prepare_callers(project: Project, context: Context, announce: Callable[[str], None]) -> None:
    """Make secrets for authentications without one, and announce them.

    Raises AuthenticationError where one can't be kept.
    """
    for name in sorted(set(_own(project, context))):
        try:
            context.resource(open_callers).tokens(name).signing_key()
        except RunError as error:
            raise AuthenticationError(error.message) from error
        announce(
            f"authentication.{name} has no secret of its own: one is kept in {context.folder / 'secrets' / name}, "
            "for this machine alone; give it one from the environment before others depend on it"
        )


def _own(project: Project, context: Context) -> Iterator[str]:
    """Yield the names of those that endpoints use."""
    for endpoint in project.endpoints:
        for way in endpoint.authentication.ways if endpoint.authentication is not None else ():
            method = context.authentication.get(way.name)
            if isinstance(method, Jwt) and method.own:
                yield way.name
