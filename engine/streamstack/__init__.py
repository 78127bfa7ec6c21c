"""streamstack: HTTP endpoints that stream, declared in YAML.

`application` makes an aiohttp application of a folder of definitions, for use from Python. `function` and `filter`
declare functions and filters in plug-ins, which raise a `RunError` for what definitions can catch.
Everything else below this package is internal.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING

from streamstack.errors import Diagnostic, ProjectError, RunError
from streamstack.plugins import filter, function  # noqa: A004  (what it declares)

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Diagnostic", "ProjectError", "RunError", "application", "filter", "function"]
__version__ = "0.1.0"

#: Imported on first use: the package itself is imported by every command, most of which serve nothing.
_APPLICATION = "streamstack.server.app"


def application(
    folder: str | PathLike[str],
    *,
    environment: Mapping[str, str] | None = None,
    dev: bool = False,
    url: str | None = None,
) -> web.Application:
    """Return an aiohttp application that serves the definitions below a folder.

    It opens its connections and its databases when it starts up, and closes them on cleanup. It can be run by
    `aiohttp.web.run_app` and by gunicorn's `aiohttp.GunicornWebWorker`, mounted with `add_subapp`, and called through
    aiohttp's test client.

    Args:
        folder: the definitions, and `streamstack.yaml` if there is one. Of its `server` section, what concerns the
            listening socket and the processes is left to the server that runs the application.
        environment: what `env` holds in definitions and settings; by default the environment of the process.
        dev: tells clients the place and the reason of errors, as `streamstack serve --dev` does.
        url: where the application can be reached, for steps that call its own endpoints by their paths.

    Raises:
        ProjectError: the definitions or settings have errors; its text is the report of `streamstack validate`.
        OSError: a file can't be read.
    """
    made: web.Application = import_module(_APPLICATION).make_application(
        folder, environment=environment, dev=dev, url=url
    )
    return made
