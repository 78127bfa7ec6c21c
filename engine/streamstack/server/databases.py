"""The databases of a project, made ready before anyone asks."""

from __future__ import annotations

from collections.abc import Callable

from streamstack.connections.postgres.checks import check_database, uses_of
from streamstack.errors import Diagnostic, RunError
from streamstack.functions.db_use import open_databases
from streamstack.language.definition import Project
from streamstack.runtime.run import Context


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
            await databases[name].open()
            found += await check_database(databases[name], steps)
        except RunError as error:
            if error.final:
                raise DatabaseError(error.message) from error
            tell(f"{error.message}; it is tried again when it is needed")
    return found
