"""The section `databases`: what it takes, and what it says of what it does not."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from streamstack.connections.database import ENGINES
from streamstack.language.settings import EMBEDDED, SCHEMES, Database, default_database, parse_section
from streamstack.language.source import read


def parse(text: str, folder: Path) -> tuple[dict[str, Database], list[str]]:
    """Return the databases of a section, and its findings."""
    documents, findings = read(text, "streamstack.yaml")
    assert findings == []
    databases, found = parse_section("databases", documents[0].root, folder)
    return dict(databases), [f"{each.line}:{each.column} {each.code}: {each.message}" for each in found]


def test_nothing_is_the_embedded_server(tmp_path: Path) -> None:
    """A project without settings has one database, `main`, without a URL."""
    assert parse_section("databases", None, tmp_path) == (EMBEDDED, [])
    assert EMBEDDED["main"].url is None


def test_everything_is_read(tmp_path: Path) -> None:
    """Durations and sizes as everywhere, files from the folder of the settings."""
    (tmp_path / "a.sql").touch()
    databases, found = parse(
        "main: {url: 'postgresql://u:p@h/d', poolSize: 3, setup: a.sql, hold: 200ms, spool: 2MB}\nown:\n", tmp_path
    )
    assert found == []
    assert databases["main"] == Database(
        "main", "postgresql://u:p@h/d", 3, "session", (tmp_path / "a.sql",), None, 0.2, 2 * 1024**2
    )
    assert databases["own"] == Database("own")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("main: {url: mysql://u:geheim@h/d}", "postgresql://user:password@host"),
        ("main: {url: 5}", "must be a text"),
        ("main: {poolSize: 0}", "from 1 to 1000"),
        ("main: {poolSize: true}", "from 1 to 1000"),
        ("main: {setup: nowhere.sql}", "no such file"),
        ("main: {hold: 0}", "more than 0"),
        ("main: {spool: many}", ""),
        ("main: {poolsize: 3}", "`poolSize`"),
        ("main: 5", "is a mapping"),
        ("main: {bin: .}", "the program `postgres`"),
        ("main: {bin: ~no-such-user/bin}", "unknown user"),
        ("a: {}\nb: {}", "the embedded server is `a` already"),
    ],
)
def test_what_is_wrong_is_told(text: str, says: str, tmp_path: Path) -> None:
    """Each fault has its place and says what to write; a password is never shown."""
    _, found = parse(text, tmp_path)
    assert len(found) == 1
    assert says in found[0]
    assert "geheim" not in found[0]


def test_the_default_is_main_or_the_only_one() -> None:
    """Of several, none is meant by itself."""
    assert default_database({"main": 1, "b": 1}) == "main"
    assert default_database({"b": 1}) == "b"
    assert default_database({"a": 1, "b": 1}) is None


def test_every_scheme_has_an_engine() -> None:
    """A scheme that the settings accept is one that a module is there for."""
    assert {*SCHEMES, ""} == set(ENGINES)
    for engine in ENGINES.values():
        module, _, name = engine.partition(":")
        assert isinstance(getattr(import_module(module), name), type)


@pytest.mark.parametrize(("text", "mode"), [("session", "session"), ("transaction", "transaction")])
def test_pool_mode(tmp_path: Path, text: str, mode: str) -> None:
    """It says whether a pooler shares connections between transactions; a misspelt one is reported."""
    url = "postgresql://h/d"
    databases, found = parse(f"main: {{url: '{url}', poolMode: {text}}}\n", tmp_path)
    assert found == []
    assert databases["main"].pooled is (mode == "transaction")
    _, found = parse(f"main: {{url: '{url}', poolMode: transactions}}\n", tmp_path)
    assert "did you mean `transaction`?" in found[0]
