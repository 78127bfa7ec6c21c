"""From a checked project to what all its runs share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamstack.language.authentication import Jwt
from streamstack.language.masking import learn
from streamstack.language.project import Checked
from streamstack.language.settings import Settings
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
    learn(environment, secrets_of(settings))
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


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield what settings hold that nobody may read in the log."""
    for model in settings.models.values():
        yield model.api_key or ""
        yield model.base_url or ""
    for database in settings.databases.values():
        yield database.url or ""
    for method in settings.authentication.values():
        if isinstance(method, Jwt):
            yield method.secret or ""
    if settings.state.redis is not None:
        yield settings.state.redis.password or ""
