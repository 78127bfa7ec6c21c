"""A project on the disk: its root, its files, its settings, all checked together."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.declare import Registry
from streamstack.language.definition import Project
from streamstack.language.findings import find
from streamstack.language.settings import Settings, load_settings
from streamstack.language.validate import validate

#: The file of a project's settings, at its root.
SETTINGS: Final = "streamstack.yaml"
#: The folder that holds the definitions where the root holds other things too.
DEFINITIONS: Final = "definitions"

#: The folder of what is made while a project is served, the embedded database above all.
OWN: Final = ".streamstack"

_SUFFIXES: Final = (".yaml", ".yml")
_TESTS: Final = (".test.yaml", ".test.yml")


@dataclass(frozen=True, slots=True)
class Checked:
    """A project as it was read. ``sources`` are the texts of its files by name, settings included."""

    root: Path
    project: Project
    settings: Settings
    findings: list[Diagnostic]
    sources: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where the project keeps what it makes itself: beside its settings, or in its own folder."""
        settings = find_settings(self.root)
        return (self.root if settings is None else settings.parent) / OWN

    @property
    def failed(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)


def find_settings(folder: Path) -> Path | None:
    """Return the settings of a project: in its folder, or upwards as far as the repository goes."""
    for candidate in (folder, *folder.resolve().parents):
        if (candidate / SETTINGS).is_file():
            return candidate / SETTINGS
        if (candidate / ".git").exists():
            return None
    return None


def find_root(path: Path) -> Path:
    """Return the folder of the project that a file or folder belongs to.

    It is the folder of the settings, or `definitions` in it where the path lies there; without
    settings the folder itself.
    """
    folder = path if path.is_dir() else path.parent
    settings = find_settings(folder)
    if settings is None:
        return folder
    definitions = settings.parent / DEFINITIONS
    inside = folder.resolve().is_relative_to(definitions.resolve())
    return definitions if inside and definitions.is_dir() else settings.parent


def find_files(folder: Path) -> list[Path]:
    """Return the definitions below a folder: all YAML but settings, tests and what is hidden.

    A folder below it with settings of its own is a project of its own, and left out.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and not Path(parent, each, SETTINGS).is_file()
        )
        found += [Path(parent, name) for name in sorted(names) if is_definition(name)]
    return found


def is_definition(name: str) -> bool:
    """Tell whether a file of this name holds definitions."""
    return (
        name.endswith(_SUFFIXES)
        and not name.startswith(".")
        and not name.endswith(_TESTS)
        and name != SETTINGS
    )


def read_project(
    root: Path,
    registry: Registry,
    environment: Mapping[str, str],
    *,
    check_environment: bool = False,
    more: Iterable[Path] = (),
) -> Checked:
    """Read and check a project: its settings and every definition below its root.

    ``environment`` is what `env` reads in the settings; only with ``check_environment`` is a
    variable that is missing a finding. ``more`` are files that belong to it wherever they lie.
    Raises OSError for a file that can't be opened.
    """
    findings: list[Diagnostic] = []
    place = find_settings(root)
    kept = read_texts([] if place is None else [place], findings)
    sources = read_texts([*find_files(root), *more], findings)
    name = display_name(place or root / SETTINGS)
    settings, found = load_settings(
        kept.get(name), name, environment, check_environment=check_environment
    )
    with uncollected():
        project, wrong = validate(
            sources,
            registry,
            settings.streaming,
            environment if check_environment else None,
            {
                "models": settings.names("models"),
                "databases": tuple(settings.databases),
                "authentication": settings.names("authentication"),
            },
        )
    return Checked(root, project, settings, sorted({*findings, *found, *wrong}), kept | sources)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away: what is made of definitions stays.

    Looking through all of it again and again took 40 % of the time of a thousand files.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # All of it joins what is old, or it would be looked through at once.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def read_texts(paths: Iterable[Path], findings: list[Diagnostic]) -> dict[str, str]:
    """Return the texts of files by the names that findings carry; what is not UTF-8 is reported.

    Raises OSError for a file that can't be opened.
    """
    texts = {}
    for path in paths:
        name = display_name(path)
        if path.exists() and not path.is_file():
            # A pipe, a device or a socket, which may have no end.
            message = "this is no regular file, and nothing else is read"
            findings.append(find("yaml-syntax", Mark(name, 1, 1), message, "take it out"))
            continue
        content = path.read_bytes()
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError as error:
            before = content[: error.start].decode()
            mark = Mark(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
            message = "the file is not UTF-8 text from here on"
            findings.append(find("yaml-syntax", mark, message, "save it as UTF-8"))
    return texts


def display_name(path: Path) -> str:
    """Return a path as messages show it: from the current folder where it lies below it."""
    here = Path.cwd()
    absolute = Path(os.path.normpath(here / path))
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else str(absolute)
