"""Serving files anew when they change: seeing that they have, and reading them again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.project import (
    SETTINGS,
    Checked,
    display_name,
    find_files,
    find_settings,
    uncollected,
)
from streamstack.language.report import write_text
from streamstack.language.settings import Settings
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Context
from streamstack.server.endpoints import UnservableError, make_endpoints
from streamstack.server.problems import log
from streamstack.server.served import Served

#: Seconds between looks at the files. Looks, and no word of the system: they see what is changed on every kind of disk
#: (a folder that a container shares, a network's), and need no thread, which would forbid to fork.
PERIOD: Final = 0.2
#: The same when something was seen to have changed.
SOON: Final = 0.08
#: What share of the time the looks may take.
_SHARE: Final = 0.05

#: Sections of streamstack.yaml that are opened once; the others can be served anew.
_OPENED: Final = ("server", "databases", "authentication", "state", "http")

Read = Callable[[], Checked]
_State = Mapping[str, tuple[int, int, int, int]]


class BrokenError(Exception):
    """Files that can't be served as they are now; its text says why."""


@dataclass(frozen=True, slots=True)
class Edition:
    """A project as it is served, until there is the next edition."""

    checked: Checked
    endpoints: list[Served]

    def context(self, before: Context) -> Context:
        """Return the context of its runs: the same things stay open."""
        settings = self.checked.settings
        return replace(before, settings=settings.settings, models=settings.models)

    def news(self, before: Edition) -> str:
        """Return the findings that the edition before did not have, as text."""
        known = {(each.file, each.code, each.message) for each in before.checked.findings}
        found = [
            each
            for each in self.checked.findings
            if (each.file, each.code, each.message) not in known
        ]
        return told(found, self.checked)


def told(findings: list[Diagnostic], checked: Checked) -> str:
    """Return findings as text."""
    return write_text(findings, checked.sources).rstrip() if findings else ""


def first_edition(checked: Checked, *, dev: bool) -> Edition:
    """Compile a project that was found sound. Raises UnservableError."""
    with uncollected():
        endpoints = make_endpoints(compile_project(checked.project), checked.settings, dev=dev)
    return Edition(checked, endpoints)


def next_edition(read: Read, before: Edition, *, dev: bool) -> Edition:
    """Read the files again and compile them.

    Raises BrokenError for what can't be served in place of the last edition.
    """
    try:
        checked = read()
    except OSError as error:
        raise BrokenError(f"{error.filename}: {error.strerror}") from error
    if checked.failed:
        raise BrokenError(told(checked.findings, checked))
    if not checked.project.endpoints:
        raise BrokenError(f"there are no endpoints in {checked.root}")
    other = _sections(before.checked.settings, checked.settings)
    if other:
        names = " and ".join(f"`{each}`" for each in other)
        place = display_name(find_settings(checked.root) or checked.root / SETTINGS)
        raise BrokenError(f"{place}: {names} can't change while it is served: restart the server")
    try:
        return first_edition(checked, dev=dev)
    except UnservableError as error:
        raise BrokenError(str(error)) from error
    except Exception as error:  # whatever it is, what is served must go on
        log.exception("reload-failed", reason=str(error))
        raise BrokenError(f"{checked.root}: the files can't be compiled: {error}") from error


def _sections(before: Settings, now: Settings) -> list[str]:
    """Return the sections that differ, of those that can't be served anew."""
    names = {each.name for each in fields(Settings)}
    return [
        each for each in _OPENED if each in names and getattr(before, each) != getattr(now, each)
    ]


class Watch:
    """Sees when the files of a project have changed, and lie still again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._served = self._pending = _look(root)
        self._took = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return max(PERIOD if self._pending == self._served else SOON, self._took / _SHARE)

    def changed(self) -> list[str]:
        """Look at the files; return the names of those that have changed since they were last returned.

        A file in the midst of being written, or moved into the place of another, changes from look to look: what has
        changed is told when two looks have found the same.
        """
        began = perf_counter()
        now = _look(self._root)
        self._took = perf_counter() - began
        still, self._pending = now == self._pending, now
        if now == self._served or not still:
            return []
        before, self._served = self._served, now
        return sorted(
            name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
        )


def _look(root: Path) -> _State:
    """Return what tells one state of the files from another."""
    settings = find_settings(root)
    found = {}
    for path in (*find_files(root), *(() if settings is None else (settings,))):
        try:
            status = os.stat(path)  # noqa: PTH116 (of thousands of files, five times a second)
        except OSError:
            continue  # it goes while we look
        name = display_name(path)
        found[name] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    return found
