"""The databases of a project, made ready before anyone asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from streamstack.connections.database.embedded import Embedded
from streamstack.connections.database.interface import uses_of
from streamstack.errors import Diagnostic, RunError
from streamstack.functions.db import open_databases
from streamstack.language.definition import Project
from streamstack.runtime.run import Context
from streamstack.server.problems import log

#: Seconds that a worker waits for its databases before it takes requests all the same.
WARM_WITHIN = 5.0


class DatabaseError(Exception):
    """A database that no waiting would mend."""


async def prepare_databases(
    project: Project, context: Context, tell: Callable[[str], None]
) -> list[Diagnostic]:
    """Connect to the databases that definitions use, run their setup, and report what they lack.

    ``tell`` is told of a database that is out of reach: it may be there when it is needed. Raises DatabaseError where
    waiting would not help: the embedded server can't start, or a setup file fails.
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
                await databases[name].set_up()  # the files are served anew
            found += await databases[name].check(steps)
        except RunError as error:
            if error.final:
                raise DatabaseError(error.full) from error
            tell(f"{error.full}; it is tried again when it is needed")
    return found


async def warm_databases(project: Project, context: Context) -> None:
    """Connect to the databases that definitions use, where that is soon done."""
    databases = context.resource(open_databases)
    with suppress(TimeoutError):
        async with asyncio.timeout(WARM_WITHIN):
            for name in uses_of(project, context.databases):
                try:
                    await databases[name].open()
                except Exception as error:  # noqa: BLE001  (it is told, and tried again, when it is needed)
                    log.info("database-not-ready", database=name, reason=str(error))


def embedded_of(project: Project, context: Context) -> Embedded | None:
    """Return the embedded server that the definitions need, not started yet; None where they need none."""
    for name in uses_of(project, context.databases):
        settings = context.databases[name]
        if settings.url is None:
            return Embedded(context.folder, bin_folder=settings.bin)
    return None
