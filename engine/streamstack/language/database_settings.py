"""The section `databases` of streamstack.yaml: which PostgreSQL servers a project has."""

from __future__ import annotations

from collections.abc import Mapping as Entries
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_duration, parse_size

#: The name of the database that a project has without settings, and of the one that is meant among several.
MAIN: Final = "main"

_KEYS: Final = ("url", "poolSize", "poolMode", "setup", "bin", "hold", "spool")
#: How connections are shared between this server and the database.
_POOL_MODES: Final = ("session", "transaction")
#: Schemes of a `url`; each has its engine in `connections/database/interface.py`.
SCHEMES: Final = ("postgresql", "postgres")
#: Connections that one server may have to a database.
LARGEST_POOL: Final = 1000


@dataclass(frozen=True, slots=True)
class Database:
    """One database. Without a ``url`` it is the embedded server; ``bin`` holds the programs of that, if not our own.

    ``setup`` are files of SQL, run once for each change. ``hold`` are the seconds that a cursor keeps its connection
    while nobody asks for its next rows; what is left then goes to a file of at most ``spool`` bytes.
    """

    name: str = MAIN
    url: str | None = None
    pool_size: int = 10
    setup: tuple[Path, ...] = ()
    bin: Path | None = None
    hold: float = 5.0
    spool: int = 1024**3
    pool_mode: str = "session"

    @property
    def pooled(self) -> bool:
        """Whether a pooler gives each transaction whichever connection is free."""
        return self.pool_mode == "transaction"


#: What a project has that says nothing of databases.
EMBEDDED: Final[Entries[str, Database]] = MappingProxyType({MAIN: Database()})


def default_database(names: Entries[str, object]) -> str | None:
    """Return the database that steps mean which name none: the only one, or `main`; None where neither is."""
    if MAIN in names:
        return MAIN
    return next(iter(names)) if len(names) == 1 else None


def parse_databases(
    node: Node | None, folder: Path
) -> tuple[Entries[str, Database], list[Diagnostic]]:
    """Return the databases by name, and what is wrong with the section.

    Files are looked for from ``folder``, that of the settings. A value that is wrong leaves its default.
    """
    findings: list[Diagnostic] = []
    if not isinstance(node, Mapping) or not node.items:
        return EMBEDDED, findings
    databases = {}
    for key, value in node.items:
        if isinstance(value, Scalar) and value.value is None:
            databases[key.text] = Database(key.text)
        elif isinstance(value, Mapping):
            databases[key.text] = _Reading(key.text, folder, findings).read(value)
        else:
            message = f"`databases.{key.text}` is a mapping."
            hint = f"write `{key.text}: {{url: << env.DATABASE_URL >>}}`"
            findings.append(find("not-a-mapping", value.mark, message, hint))
    ours = [
        key.text
        for key, value in node.items
        if databases.get(key.text, Database(url="")).url is None and not _has_url(value)
    ]
    for name in ours[1:]:
        mark = next(value.mark for key, value in node.items if key.text == name)
        message = (
            f"`databases.{name}` has no `url`, and the embedded server is `{ours[0]}` already."
        )
        findings.append(find("bad-setting", mark, message, "give all of them but one a `url`"))
    return databases, findings


def _has_url(node: Node) -> bool:
    """Whether a database has a URL, be it a wrong one, or one from a variable that is not set here."""
    url = node.get("url") if isinstance(node, Mapping) else None
    if isinstance(url, Scalar) and url.value is None:
        return url.source is None  # a variable's: `substitute` leaves no source
    return url is not None and not (isinstance(url, Scalar) and url.value == "")


class _Reading:
    """Reads one database."""

    def __init__(self, name: str, folder: Path, findings: list[Diagnostic]) -> None:
        self.name = name
        self.folder = folder
        self.findings = findings

    def read(self, node: Mapping) -> Database:
        given: dict[str, Any] = {}
        readers = {
            "url": ("url", self._url),
            "poolSize": ("pool_size", self._pool_size),
            "poolMode": ("pool_mode", self._pool_mode),
            "setup": ("setup", self._setup),
            "bin": ("bin", self._bin),
            "hold": ("hold", self._hold),
            "spool": ("spool", self._spool),
        }
        for key, value in node.items:
            if key.text not in readers:
                message = (
                    f"`databases.{self.name}` has no `{key.text}`{did_you_mean(key.text, _KEYS)}"
                )
                self.findings.append(
                    find("unknown-setting", key.mark, message, f"it takes {', '.join(_KEYS)}")
                )
                continue
            if isinstance(value, Scalar) and value.value is None:
                continue
            name, read = readers[key.text]
            try:
                given[name] = read(value)
            except ValueError as error:
                message = f"`databases.{self.name}.{key.text}`: {error}"
                self.findings.append(find("bad-setting", value.mark, message))
        if given.get("bin") is not None and given.get("url") is not None:
            key_of_bin = node.key("bin")
            message = (
                f"`databases.{self.name}.bin` is for the embedded server, and `url` names another."
            )
            mark = node.mark if key_of_bin is None else key_of_bin.mark
            self.findings.append(find("conflicting-parameters", mark, message))
        return Database(self.name, **given)

    def _url(self, node: Node) -> str | None:
        # << env.DATABASE_URL | default("") >>: the embedded server, unless somebody says otherwise.
        if isinstance(node, Scalar) and node.value == "":
            return None
        text = self._text(node)
        # Whoever sees the message must not see the password, so the URL is never shown.
        if urlsplit(text).scheme not in SCHEMES:
            raise ValueError("it is written like postgresql://user:password@host:5432/name")
        return text

    def _pool_size(self, node: Node) -> int:
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if type(value) is not int or not 1 <= value <= LARGEST_POOL:
            raise ValueError(f"a whole number from 1 to {LARGEST_POOL} is needed here")
        return value

    def _pool_mode(self, node: Node) -> str:
        mode = self._text(node)
        if mode not in _POOL_MODES:
            raise ValueError(f"it is session or transaction{did_you_mean(mode, _POOL_MODES)}")
        return mode

    def _setup(self, node: Node) -> tuple[Path, ...]:
        items = node.items if isinstance(node, Sequence) else (node,)
        files = tuple(self.folder / self._text(item) for item in items)
        for file in files:
            if not file.is_file():
                raise ValueError(f"there is no file {file}")
        return files

    def _bin(self, node: Node) -> Path:
        try:
            folder = self.folder / Path(self._text(node)).expanduser()
        except RuntimeError as error:
            raise ValueError(f"there is no home of that name: {self._text(node)}") from error
        if not (folder / "postgres").is_file():
            raise ValueError(f"there is no program `postgres` in {folder}")
        return folder

    def _hold(self, node: Node) -> float:
        seconds = parse_duration(node.value if isinstance(node, Scalar) else None)
        if seconds <= 0:
            raise ValueError("a time of more than nothing is needed here, such as 5s")
        return seconds

    def _spool(self, node: Node) -> int:
        return parse_size(node.value if isinstance(node, Scalar) else None)

    def _text(self, node: Node) -> str:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str) or not value.strip():
            raise ValueError("a text is needed here")
        return value.strip()
