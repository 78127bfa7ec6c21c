"""Plug-ins: functions and filters of a project, from their file to the bytes that a client gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.project import Checked, read_project
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Context, Run
from streamstack.server.reloading import FileChanges
from tests.collector import Collector
from tests.testing.running import run_one

PLUGIN = '''\
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict

from streamstack import RunError, filter, function


class Person(TypedDict):
    name: str
    age: NotRequired[int]


@function("people.find")
async def find(name: str, *, max_age: int | None = None, kind: Literal["old", "new"] = "new") -> Person | None:
    """Find a person.

    More about it.

    Args:
        name: Who is
            looked for.
        max_age: How old at most.
    """
    if name == "absent":
        return None
    if name == "thief":
        raise RunError("arrested", "not here", status=451)
    return {"name": f"{name}/{kind}/{max_age}"}


@function("people.count")
def count(names: list[str], wait: timedelta = timedelta()) -> int:
    """Count names, in a thread."""
    time.sleep(0.01)
    return len(names) // (len(names) - 1)


@function("people.stream")
async def stream(names: AsyncIterator[str]) -> AsyncIterator[Person]:
    """Stream people."""
    async for name in names:
        if name == "bad":
            raise ValueError("no such person")
        yield {"name": name.upper()}


@function("people.wrong")
async def wrong(amount: Decimal, given: Any) -> Any:
    """Return what is not a value."""
    return {1, 2} if given else (amount, [amount])


@filter("initials")
def initials(name: str, separator: str = "") -> str:
    """Return the first letters of a name."""
    return separator.join(word[0] for word in name.split(" "))
'''
HEAD = "method: POST\npath: /it\nresponseType: json\nunknownInputs: ignore\nfunctionStack:\n"


def check(folder: Path, stack: str = "  - return: 1\n", plugins: dict[str, str] | None = None) -> Checked:
    """Write and read a project with plug-ins."""
    files = {"p.py": PLUGIN} if plugins is None else plugins
    (folder / "streamstack.yaml").write_text(f"plugins: [{', '.join(files)}]\n")
    (folder / "api.yaml").write_text(HEAD + stack)
    for name, text in files.items():
        (folder / name).write_text(text)
    return read_project(folder, REGISTRY, os.environ)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("- people.find: ada\n- people.find: {name: ada, maxAge: 7, kind: old}\n  as: it\n- return: << it.name >>",
         "body: ada/old/7"),
        ("- people.find: absent\n  as: it\n- return: << it is none >>", "body: true"),
        ("- people.find: << input.name >>", "error: {code: arrested, status: 451, message: not here}"),
        ("- try:\n    do: [{people.find: thief}]\n    catch: {on: [arrested], do: [{return: caught}]}", "body: caught"),
        ("- people.count: [a, b]\n  as: it\n- return: << it >>", "body: 2"),
        ("- people.count: [a]", "error: internal"),
        ("- people.count: << [1] >>", "error: template"),
        ("- people.stream: [a, b]\n  as: it\n- collect: << it >>\n  as: all\n- return: << all >>",
         "body: [{name: A}, {name: B}]"),
        ("- people.stream: [a, bad]\n  as: it\n- collect: << it >>", "error: internal"),
        ("- people.wrong: {amount: 1.5, given: false}\n  as: it\n- return: << it >>", "body: [1.5, [1.5]]"),
        ("- people.wrong: {amount: 1.5, given: true}", "error: internal"),
        ("- return: << 'Ada Lovelace' | initials('.') ~ ('a b' | initials(separator='-')) >>", "body: A.La-b"),
        ("- return: << ['Ada B', 'C D'] | map('initials') >>", "body: [AB, CD]"),
        ("- return: << input.name ~ '  x' | initials >>", "error: internal"),
    ],
)  # fmt: skip
def test_plugins_run(tmp_path: Path, steps: str, expected: str) -> None:
    """Functions and filters of plug-ins give values, streams and errors as the built-in ones."""
    stack = "\n".join(f"  {line}" for line in steps.split("\n"))
    head = HEAD.replace("unknownInputs: ignore", "inputParameters: {name: {type: text, default: thief}}")
    test = f"request: {{method: POST, path: /it}}\nexpect: {{{expected}}}\n"
    files = {"streamstack.yaml": "plugins: p.py\n", "p.py": PLUGIN}
    assert run_one(tmp_path, f"{head}{stack}\n", test, files) == ""


@pytest.mark.parametrize(
    ("step", "line", "error"),
    [("people.count: [a]", 37, "ZeroDivisionError"), ("people.wrong: {amount: 1, given: true}", 49, "TypeError")],
)
async def test_errors_name_the_file_and_line(tmp_path: Path, step: str, line: int, error: str) -> None:
    """An exception is `internal`; its message for the author has the place in the plug-in, that for clients has not."""
    checked = check(tmp_path, f"  - {step}\n")
    assert checked.findings == []
    (plan,) = compile_project(checked.project)
    with pytest.raises(RunError) as raised:
        await plan.start(Run(Collector(), Context()), {})
    fault = raised.value
    assert (fault.code, fault.status, fault.public) == ("internal", 500, "The server could not complete this request.")
    assert fault.full.startswith(f"{error}: ")
    assert fault.full.endswith(f"p.py:{line})")
    assert fault.about["plugin"].endswith(f"p.py:{line}")
    assert fault.place is not None


@pytest.mark.parametrize(
    ("stack", "code", "message"),
    [
        ("people.fined: ada", "unknown-function", "did you mean `people.find`?"),
        ("people.find: {nam: ada}", "unknown-parameter", "did you mean `name`?"),
        ("people.find: {maxAge: 5}", "missing-parameter", "name"),
        ("people.find: {name: a, maxAge: old}", "wrong-type", "integer"),
        ("people.find: {name: a, kind: odl}", "wrong-type", "did you mean `old`?"),
        ("set: {x: << 1 | initial >>}", "unknown-filter", "did you mean `initials`?"),
        ("set: {x: << 'a' | initials(1, 2) >>}", "bad-template", "takes at most 1"),
    ],
)
def test_validate_knows_plugins(tmp_path: Path, stack: str, code: str, message: str) -> None:
    """What is wrong with a call of a plug-in is found as for built-in functions."""
    found = [each for each in check(tmp_path, f"  - {stack}\n").findings if each.severity == "error"]
    assert [each.code for each in found] == [code], found
    assert message in f"{found[0].message} {found[0].hint}"


def test_results_have_shapes(tmp_path: Path) -> None:
    """A path into a result that a TypedDict does not have is an error."""
    stack = "  - people.find: ada\n    as: it\n  - return: << it.nmae >>\n"
    assert "nmae" in " ".join(each.message for each in check(tmp_path, stack).findings)


DECLARE = "from streamstack import filter, function\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = (\n", 1, "not valid Python"),
        ("\nimport absent_package_of_tests\n", 2, "can't be imported: ModuleNotFoundError"),
        ("\n\nraise SystemExit(3)\n", 3, "SystemExit"),
        (DECLARE + "@function\ndef f() -> None:\n    'F.'\n", 2, 'write `@function("name")`'),
        (DECLARE + "@function('http.request')\ndef f() -> None:\n    'F.'\n", 2, "streamstack has one of this name"),
        (DECLARE + "@filter('upper')\ndef f(x: str) -> str:\n    'F.'\n    return x\n", 2, "streamstack has one"),
        (DECLARE + "@function('as')\ndef f() -> None:\n    'F.'\n", 2, "reserved"),
        (DECLARE + "@function('A b')\ndef f() -> None:\n    'F.'\n", 2, "not valid"),
        (DECLARE + "@function('a.b')\ndef f(x) -> None:\n    'F.'\n", 2, "`x` has no annotation"),
        (DECLARE + "@function('a.b')\ndef f():\n    'F.'\n", 2, "`return` has no annotation"),
        (DECLARE + "@function('a.b')\ndef f() -> None:\n    pass\n", 2, "no docstring"),
        (DECLARE + "@function('a.b')\ndef f(*x: int) -> None:\n    'F.'\n", 2, "`*x: int` is not a parameter"),
        (DECLARE + "@function('a.b')\ndef f(x: set[int]) -> None:\n    'F.'\n", 2, "has the type set"),
        (DECLARE + "@function('a.b')\ndef f(x: 'Absent') -> None:\n    'F.'\n", 2, "annotations can't be read"),
        (DECLARE + "@function('a.b')\ndef f(x: object = object()) -> None:\n    'F.'\n", 2, "the default of `x`"),
        (DECLARE + "@function('a.b')\ndef f() -> int:\n    'F.'\n    yield 1\n", 2, "would block"),
        (DECLARE + "@filter('ab')\nasync def f(x: str) -> str:\n    'F.'\n    return x\n", 2, "a plain function"),
        (DECLARE + "@filter('ab')\ndef f() -> str:\n    'F.'\n    return ''\n", 2, "the value on its left"),
        (
            DECLARE + "@function('a.b')\ndef f() -> None:\n    'F.'\n@function('a.b')\ndef g() -> None:\n    'G.'\n",
            5,
            "p.py:2:1 too",
        ),
    ],
)
def test_a_bad_plugin_is_a_finding(tmp_path: Path, text: str, line: int, message: str) -> None:
    """A file that can't be run, and a declaration that can't be used, are findings with their line."""
    (found,) = check(tmp_path, plugins={"p.py": text}).findings
    assert (found.code, Path(found.file).name, found.line) == ("bad-plugin", "p.py", line)
    assert message in found.message


@pytest.mark.parametrize(
    ("entry", "message"), [("absent.py", "no such file"), ("../p.py", "outside"), ("p.txt", "Python")]
)
def test_only_python_files_of_the_project(tmp_path: Path, entry: str, message: str) -> None:
    """`plugins` names files inside of the project."""
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "p.py").write_text("")
    check(folder)
    (folder / "streamstack.yaml").write_text(f"plugins: [{entry}]\n")
    found = read_project(folder, REGISTRY, {}).findings
    assert message in found[0].message
    assert (found[0].code, found[0].line) == ("bad-setting", 1)


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    """A plug-in is watched, runs again once it has changed, and leaves no filter to other projects."""
    checked = check(tmp_path, "  - return: << 'a b' | initials >>\n")
    changes = FileChanges(checked)
    again = read_project(tmp_path, REGISTRY, {})
    assert again.registry["people.find"].run is not None
    assert again.project.filters.keys() == {"initials"}
    (tmp_path / "p.py").write_text(PLUGIN.replace('"initials"', '"firsts"').replace("people.find", "people.look"))
    assert [Path(each).name for each in changes.take()] == ["p.py"]
    now = read_project(tmp_path, REGISTRY, {})
    assert [each.code for each in now.findings] == ["unknown-filter"]
    assert "people.look" in now.registry
    assert "people.find" not in now.registry


def test_the_reference_and_the_schema_have_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`functions` and `schema` show what the project in the current folder declares."""
    check(tmp_path)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    text = runner.invoke(main, ["functions", "people.find", "--markdown"]).output
    assert "Find a person." in text
    assert "Who is looked for." in text
    assert "| `maxAge` |" in text
    assert "{name: text, age: integer~}" in text
    assert "`value | initials" in runner.invoke(main, ["functions", "initials", "--markdown"]).output
    assert "people.stream" in runner.invoke(main, ["functions"]).output
    assert '"people.find"' in runner.invoke(main, ["schema"]).output
