"""From a checked project to what all its runs share."""

from __future__ import annotations

from collections.abc import Mapping

from streamstack.language.project import Checked
from streamstack.runtime.run import Context


def make_context(
    checked: Checked,
    environment: Mapping[str, str],
    *,
    dev: bool,
    joins: bool = False,
    starts: bool = True,
) -> Context:
    """Return the context of a project's runs.

    ``joins``: its embedded database may be one that another process runs; it always is without ``starts``.
    """
    settings = checked.settings
    return Context(
        env=environment,
        settings=settings.settings,
        dev=dev,
        models=settings.models,
        http=settings.http,
        state=settings.state,
        databases=settings.databases,
        authentication=settings.authentication,
        folder=checked.folder,
        joins=joins,
        starts=starts,
    )
