"""The authentications of a project, made ready before anyone asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streamstack.errors import RunError
from streamstack.functions.security_use import open_callers
from streamstack.language.authentication import Jwt
from streamstack.language.definition import Project
from streamstack.runtime.run import Context


class AuthenticationError(Exception):
    """An authentication by which nobody could ever come in."""


def prepare_callers(project: Project, context: Context, tell: Callable[[str], None]) -> None:
    """Make the secrets of authentications that were given none, and tell of them.

    Raises AuthenticationError where one can't be kept.
    """
    for name in sorted(set(_own(project, context))):
        try:
            context.resource(open_callers).tokens(name).signing_key()
        except RunError as error:
            raise AuthenticationError(error.message) from error
        tell(
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
