"""The OpenAPI document that a server has of itself."""

from __future__ import annotations

from functools import cached_property

from streamstack.language.definition import Project
from streamstack.language.openapi.document import make_document
from streamstack.language.project import Checked
from streamstack.language.settings import Settings
from streamstack.language.values import to_json
from streamstack.server.metrics import is_local
from streamstack.server.request import Request


class ApiDocument:
    """The document of what is served, and access to it: for all clients, or with `--dev` for this machine only.

    It is made for the first request.
    """

    def __init__(self, checked: Checked | None = None, *, dev: bool = False) -> None:
        self._project = Project() if checked is None else checked.project
        self._settings = Settings() if checked is None else checked.settings
        serve = self._settings.server.openapi.serve
        self._open = serve is True
        self._local = serve is None and dev and checked is not None

    def admits(self, request: Request) -> bool:
        """Tell whether a request may read it."""
        return self._open or (self._local and is_local(request))

    @cached_property
    def data(self) -> bytes:
        """The document, as JSON."""
        return to_json(make_document(self._project, self._settings).document)
