"""Reload files when they change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.functions.security import open_callers
from streamstack.language.definition import Definition
from streamstack.language.findings import write_text
from streamstack.language.graph import steps_of
from streamstack.language.masking import learn
from streamstack.language.project import (
    SETTINGS,
    Checked,
    display_name,
    environment_file,
    find_files,
    find_settings,
    uncollected,
)
from streamstack.language.settings import Settings
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Context
from streamstack.server.context import secrets_of
from streamstack.server.endpoints import EndpointHandler, UnservableError, make_endpoints
from streamstack.server.replies import log

#: Seconds between two looks at the files.
_PAUSE: Final = 0.25
#: Seconds in which nothing of a file may change before it is read.
_SETTLED: Final = 0.05
#: How often files that keep changing are looked at before they are read all the same.
_MOST_CHECKS: Final = 20
#: Sections of streamstack.yaml that need a restart, but for what is read for each request; all others are reloaded.
_OPENED: Final = ("server", "databases", "state", "channels", "jobs", "http", "log")
_PER_REQUEST: Final = ("cors", "max_body_size", "trusted_proxies", "forwarded_header", "openapi")
#: What functions keep in memory, by the beginnings of their names.
_IN_MEMORY: Final = {
    "cache.": "cached values",
    "channel.": "channels",
    "counter.": "counters",
    "job.": "jobs",
    "rateLimit": "rate limits",
}

Read = Callable[[], Checked]
_Stats = Mapping[str, tuple[int, int, int, int]]


class BrokenError(Exception):
    """Files that can't be served as they are now; its text says why."""


@dataclass(frozen=True, slots=True)
class Edition:
    """A project as it is served, until there is the next edition.

    ``restart`` are sections of its settings that have changed since the server was started: it has the earlier ones.
    """

    checked: Checked
    endpoints: list[EndpointHandler]
    restart: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether figures are needed, even where the metrics are not served."""
        return bool(self.checked.settings.alerts)

    def context(self, before: Context) -> Context:
        """Return the context of its runs: the same things stay open."""
        settings = self.checked.settings
        learn(self.checked.environment, secrets_of(settings))
        if settings.authentication or before.authentication:
            before.resource(open_callers).replace(settings.authentication)
        return replace(
            before,
            env=self.checked.environment,
            settings=settings.settings,
            models=settings.models,
            authentication=settings.authentication,
        )

    def news(self, before: Edition) -> str:
        """Return as text what the edition before did not have: findings, and settings that need a restart."""
        known = {(each.file, each.code, each.message) for each in before.checked.findings}
        found = [each for each in self.checked.findings if (each.file, each.code, each.message) not in known]
        news = [findings_text(found, self.checked)] if found else []
        if self.restart and self.restart != before.restart:
            names = " and ".join(f"`{each}`" for each in self.restart)
            root = self.checked.root
            place = display_name(find_settings(root) or root / SETTINGS)
            news.append(f"{place}: {names} can't change while it is served: restart the server")
        return "\n".join(news)


def findings_text(findings: list[Diagnostic], checked: Checked) -> str:
    """Return findings as text."""
    return write_text(findings, checked.sources).rstrip() if findings else ""


def first_edition(checked: Checked, *, dev: bool) -> Edition:
    """Compile a project that was found sound. Raises UnservableError."""
    _check_email(checked, dev=dev)
    with uncollected():
        endpoints = make_endpoints(compile_project(checked.project), checked.settings, dev=dev)
    return Edition(checked, endpoints)


def _check_email(checked: Checked, *, dev: bool) -> None:
    """Raise UnservableError for a step that sends mail where the settings have no mail server, or no sender."""
    email = checked.settings.email
    for definition in checked.project.definitions:
        for step in steps_of(definition.stack):
            if step.function.name != "email.send":
                continue
            if email.server is None and not dev:
                advice = "add `email: {url: << env.SMTP_URL >>, from: ...}`, or serve with --dev, which writes files"
                raise UnservableError(step.mark, f"`email.send` needs a mail server in streamstack.yaml: {advice}")
            if email.server is not None and email.sender is None and step.arguments.get("from") is None:
                raise UnservableError(step.mark, "`email.send` has no `from`: add it, or `email: {from: ...}`")


def next_edition(read: Read, before: Edition, *, dev: bool) -> Edition:
    """Read the files again and compile them.

    Raises BrokenError for what can't be served in place of the last edition.
    """
    try:
        checked = read()
    except OSError as error:
        raise BrokenError(f"{error.filename}: {error.strerror}") from error
    if checked.failed:
        raise BrokenError(findings_text(checked.findings, checked))
    if not checked.project.endpoints:
        raise BrokenError(f"no endpoints found in {checked.root}")
    settings, restart = _with_opened(checked.settings, before.checked.settings)
    checked = replace(checked, settings=settings)
    try:
        return replace(first_edition(checked, dev=dev), restart=restart)
    except UnservableError as error:
        raise BrokenError(str(error)) from error
    except Exception as error:  # whatever it is, what is served must go on
        log.exception("reload-failed", reason=str(error))
        raise BrokenError(f"{checked.root}: the files can't be compiled: {error}") from error


def _with_opened(settings: Settings, before: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Return settings with the sections as they were that are opened once, and the names of those that differ."""
    server = replace(before.server, **{name: getattr(settings.server, name) for name in _PER_REQUEST})
    opened = {name: getattr(before, name) for name in _OPENED} | {"server": server}
    changed = tuple(name for name in _OPENED if getattr(settings, name) != opened[name])
    return replace(settings, **opened), changed


def unshared(checked: Checked) -> tuple[list[str], list[str]]:
    """Return why several workers can't serve a project, and what each of them would keep in memory for itself."""
    if checked.settings.state.shared:
        return [], []
    elsewhere = "set `state.url` to redis://..., or `server.workers` to 1"
    endpoints = [each for each in checked.project.endpoints if not each.disabled]
    definitions: list[Definition] = [*endpoints, *checked.project.functions.values()]
    refused = [
        f"{endpoint.mark}: `resume` finds a stream only in the worker that began it: {elsewhere}"
        for endpoint in endpoints
        if endpoint.streaming.resume
    ]
    if checked.settings.ratings is not None:
        mark = checked.settings.ratings.mark
        refused.append(f"{mark}: `ratings` finds a run only in the worker that answered it: {elsewhere}")
    used = {
        step.function.name
        for definition in definitions
        if not definition.disabled
        for step in steps_of(definition.stack)
    }
    if any(endpoint.rate_limits for endpoint in endpoints):
        used.add("rateLimit")
    if any(endpoint.cache for endpoint in endpoints):
        used.add("cache.")
    held = [what for start, what in _IN_MEMORY.items() if any(name.startswith(start) for name in used)]
    if not held:
        return refused, []
    return refused, [f"each worker has {' and '.join(held)} of its own: to share them, {elsewhere}"]


# ---------------------------------------------------------------------------- files that change


class FileChanges:
    """The changes of a project's files, found by polling, since not every file system reports changes.

    ``pause``: seconds between two looks.
    """

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._seen = _stats(checked)
        self.pause = _PAUSE

    def take(self) -> list[str]:
        """Return the names of files that have changed since the last look, once none of them is being written."""
        began = monotonic()
        now = _stats(self._checked)
        self.pause = max(_PAUSE, 20 * (monotonic() - began))  # of a large project too, it takes few of the CPU's time
        if now == self._seen:
            return []
        before, self._seen = self._seen, _settled(self._checked, now)
        return sorted(name for name in before.keys() | self._seen.keys() if before.get(name) != self._seen.get(name))


def _settled(checked: Checked, now: _Stats) -> _Stats:
    """Return the state of the files once none of them is in the midst of being written, or moved into place."""
    for _ in range(_MOST_CHECKS):
        sleep(_SETTLED)
        before, now = now, _stats(checked)
        if now == before:
            break
    return now


def _watched(checked: Checked) -> Iterator[Path]:
    root = checked.root
    yield from find_files(root)
    settings = find_settings(root)
    yield from (() if settings is None else (settings,))
    yield environment_file(root)
    yield from (each.path for each in checked.settings.plugins)
    for database in checked.settings.databases.values():
        yield from database.setup
    if (tls := checked.settings.server.tls) is not None:
        yield from (each for each in (tls.certificate, tls.key) if each is not None)


def _stats(checked: Checked) -> _Stats:
    """Return what tells one state of the files from another."""
    found = {}
    for path in _watched(checked):
        try:
            status = os.stat(path)  # noqa: PTH116 (of thousands of files)
        except OSError:
            continue  # it goes while we look
        name = display_name(path)
        found[name] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    return found
