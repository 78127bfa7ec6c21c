"""What the Security family and the server share: the authentications of the settings, the threads of passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamstack.functions.http_upstream import open_http
from streamstack.runtime.run import Context

if TYPE_CHECKING:
    from streamstack.connections.authentication import Authenticators
    from streamstack.connections.passwords import Passwords


def open_callers(context: Context) -> Authenticators:
    """Make the authentications of the settings; `run.context.resource(open_callers)` returns it."""
    # Its libraries are loaded where a project has authentications, which most have not.
    from streamstack.connections.authentication import Authenticators  # noqa: PLC0415

    return Authenticators(
        context.authentication, lambda: context.resource(open_http), context.folder
    )


def open_passwords(context: Context) -> Passwords:
    """Make what hashes passwords."""
    from streamstack.connections.passwords import Passwords  # noqa: PLC0415  (likewise)

    return Passwords()
