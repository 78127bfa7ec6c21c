"""The house has floors: imports go downwards, in no circle, and each library has its own room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ENGINE = Path(__file__).parent.parent / "engine" / "streamstack"


@dataclass(frozen=True, slots=True)
class Room:
    """The modules of one floor (several rooms may share it). The first room that matches has it."""

    name: str
    floor: float
    modules: tuple[str, ...]

    def holds(self, module: str) -> bool:
        return any(fnmatchcase(module, pattern) for pattern in self.modules)


ROOMS = (
    Room("cli", 6, ("streamstack.cli", "streamstack.cli.*", "streamstack.__main__")),
    Room("server", 5, ("streamstack.server", "streamstack.server.*")),
    Room("testing", 5, ("streamstack.testing", "streamstack.testing.*")),
    Room("client", 4, ("streamstack.client",)),
    Room("plan", 4, ("streamstack.runtime.plan", "streamstack.runtime.plan.*")),
    Room("registry", 3, ("streamstack.functions",)),
    Room("functions", 3, ("streamstack.functions.*",)),
    Room("runtime", 2, ("streamstack.runtime", "streamstack.runtime.*")),
    Room("connections", 2, ("streamstack.connections", "streamstack.connections.*")),
    # The analysis asks the formats what they can carry; their encoders need values alone.
    Room("formats", 0.7, ("streamstack.formats", "streamstack.formats.*")),
    Room("values", 0.3, ("streamstack.language.values", "streamstack.language.names")),
    Room("language", 1, ("streamstack.language", "streamstack.language.*", "streamstack.spec")),
    Room("errors", 0, ("streamstack.errors", "streamstack.clock", "streamstack.plugins")),
    # The package itself holds the version; whatever it imported, everything would import.
    Room("streamstack", -1, ("streamstack",)),
)

#: (from, to) that the floors alone would allow, or refuse, wrongly.
FORBIDDEN = {
    ("plan", "functions"): "a plan is given a Registry; it never imports functions",
    ("plan", "registry"): "a plan is given a Registry; it never imports functions",
}
ALLOWED = {("registry", "functions"), ("testing", "server"), ("streamstack", "errors")}

#: Which modules may import a library. Any other library may be imported anywhere.
LIBRARIES = {
    "yaml": ("streamstack.language.source",),
    "re2": ("streamstack.language.patterns",),
    "jinja2": (
        "streamstack.language.analysis.emissions",
        "streamstack.language.analysis.evaluate",
        "streamstack.language.analysis.narrowing",
        "streamstack.language.expressions",
        "streamstack.language.expressions.*",
        "streamstack.language.filters",
        "streamstack.language.filters.*",
    ),
    "jsonschema": ("streamstack.language.json_schema",),
    "referencing": ("streamstack.language.json_schema",),
    "aiohttp": (
        "streamstack.client",
        "streamstack.testing.client",
        "streamstack",
        "streamstack.server",
        "streamstack.server.*",
        "streamstack.connections",
        "streamstack.connections.*",
        "streamstack.cli.call",
        "streamstack.testing.answers",
        "streamstack.testing.messages",
        "streamstack.testing.recorder",
        "streamstack.testing.upstreams",
    ),
    "joserfc": ("streamstack.connections.tokens",),
    "dotenv": ("streamstack.language.environment",),
    "aiosmtplib": ("streamstack.connections.mail",),
    "asyncpg": ("streamstack.connections", "streamstack.connections.*"),
    "redis": ("streamstack.connections", "streamstack.connections.*"),
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module by another, wherever in the file it stands."""

    importer: str
    imported: str
    line: int
    only_types: bool = False


def read_modules(package: Path) -> dict[str, ast.Module]:
    """Parse every module below a package folder, by its full name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(path.read_text("utf-8"), str(path))
    return modules


def read_imports(package: Path) -> list[Import]:
    """List all imports below a package folder: in functions and under TYPE_CHECKING too."""
    modules = read_modules(package)
    folders = {".".join(path.parent.relative_to(package.parent).parts) for path in package.rglob("__init__.py")}
    imports = []
    for name, tree in modules.items():
        hidden = _lines_for_types(tree)
        imports += [
            Import(name, imported, line, line in hidden)
            for imported, line in _targets(tree, name, set(modules), is_package=name in folders)
        ]
    return imports


def _lines_for_types(tree: ast.Module) -> set[int]:
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for each in node.body
        for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)
    }


def _targets(tree: ast.Module, name: str, modules: set[str], *, is_package: bool) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, name, is_package=is_package)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                # `from package import module` imports the module, not what the package lists.
                yield inner if inner in modules else origin, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, node.lineno


def _origin(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    folder = parts[: len(parts) - node.level + is_package]
    return ".".join([*folder, *([node.module] if node.module else [])])


def room_of(module: str) -> Room | None:
    """Return the room of a module, None for one that stands outside the house."""
    return next((room for room in ROOMS if room.holds(module)), None)


def find_faults(package: Path) -> list[str]:
    """List what is built against the plan, each with the place and the reason."""
    imports = read_imports(package)
    faults = [
        f"{module}: has no room; give it one in ROOMS" for module in read_modules(package) if room_of(module) is None
    ]
    faults += [
        f"{each.importer}:{each.line}: imports {each.imported}: {fault}"
        for each in imports
        if (fault := _fault_of(each))
    ]
    return faults + [f"{' -> '.join(cycle)}: a circle" for cycle in find_cycles(imports)]


def _fault_of(each: Import) -> str | None:
    library = each.imported.partition(".")[0]
    if library != "streamstack":
        rooms = LIBRARIES.get(library)
        if rooms is None or any(fnmatchcase(each.importer, pattern) for pattern in rooms):
            return None
        return f"only {', '.join(rooms) or 'tests'} may"
    above, below = room_of(each.importer), room_of(each.imported)
    if above is None or below is None or above == below:
        return None
    if (above.name, below.name) in ALLOWED:
        return None
    if reason := FORBIDDEN.get((above.name, below.name)):
        return reason
    if below.name == "registry" and above.floor < 5:
        return "only cli, server and testing take the list of functions"
    if above.floor == below.floor:
        return f"{above.name} and {below.name} are siblings"
    return f"{below.name} is above {above.name}" if below.floor > above.floor else None


def find_cycles(imports: list[Import]) -> list[list[str]]:
    """List the circles of imports, each as the way round, from its alphabetically first module.

    Imports under TYPE_CHECKING have to keep to the floors, but close no circle: two types of one
    room may name one another (a function compiles steps, a step names its function).
    """
    arrows: dict[str, set[str]] = {}
    for each in imports:
        if not each.only_types:
            arrows.setdefault(each.importer, set()).add(each.imported)
    found: dict[frozenset[str], list[str]] = {}
    finished: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            cycle = way[way.index(module) :]
            start = cycle.index(min(cycle))
            ordered = cycle[start:] + cycle[:start]
            found.setdefault(frozenset(cycle), [*ordered, ordered[0]])
        elif module not in finished:
            for imported in sorted(arrows.get(module, ())):
                walk(imported, [*way, module])
            finished.add(module)

    for module in sorted(arrows):
        walk(module, [])
    return list(found.values())


def test_engine_keeps_to_its_floors() -> None:
    """No module of the engine imports upwards, sideways, in a circle, or another room's library."""
    assert "streamstack.errors" in read_modules(ENGINE), "the test looks at the wrong folder"
    assert any(each.imported == "streamstack.errors" for each in read_imports(ENGINE))
    assert "\n".join(find_faults(ENGINE)) == ""


def build(folder: Path, files: dict[str, str]) -> Path:
    """Write a small package `streamstack` with an `__init__.py` in every folder."""
    package = folder / "streamstack"
    for name, source in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    return package


SOUND = {
    "__init__.py": '__version__ = "0"',
    "errors.py": "from dataclasses import dataclass",
    "language/__init__.py": "from streamstack.language.source import read",
    "language/source.py": "import yaml\nfrom streamstack.errors import Mark",
    "language/expressions/__init__.py": "from jinja2 import nodes",
    "language/filters/text.py": "import jinja2.filters",
    "connections/databases.py": "import asyncpg, aiohttp\nfrom streamstack import language",
    "runtime/values.py": "from streamstack.errors import RunError",
    "runtime/run.py": "from .values import Stream\nfrom ..language import source",
    "runtime/plan.py": "from streamstack.runtime import run, values",
    "functions/__init__.py": "from streamstack.functions import http",
    "functions/http.py": "from streamstack.connections.databases import Pool",
    "functions/llm.py": "from streamstack.functions import http\nimport streamstack.runtime.run",
    "server/app.py": "import aiohttp\nfrom streamstack.functions import registry",
    "testing/cases.py": "from streamstack.functions import registry\nfrom ..runtime import plan",
    "cli.py": "from streamstack import __version__, server\nfrom streamstack.testing import cases",
}


TYPE_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


def test_sound_tree_has_no_faults(tmp_path: Path) -> None:
    """Every arrow that the plan allows is allowed."""
    assert find_faults(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("errors.py", "import streamstack.language", "language is above errors"),
        ("errors.py", "from .language import source", "imports streamstack.language.source"),
        ("language/source.py", "from ..runtime.run import Run", "runtime is above language"),
        ("runtime/run.py", "from streamstack.runtime.plan import Plan", "plan is above runtime"),
        ("runtime/run.py", "import streamstack.connections", "are siblings"),
        ("connections/databases.py", "from streamstack.runtime import values", "are siblings"),
        ("runtime/plan.py", "from streamstack.functions.http import get", "given a Registry"),
        ("runtime/plan.py", "from streamstack.functions import registry", "given a Registry"),
        ("functions/llm.py", "from streamstack.runtime.plan import Plan", "plan is above"),
        ("functions/llm.py", "from streamstack.functions import registry", "only cli, server and"),
        ("functions/llm.py", "from . import registry", "only cli, server and testing"),
        ("server/app.py", "from streamstack.testing import cases", "server and testing are"),
        ("server/app.py", "from ..testing import cases", "server and testing are siblings"),
        ("server/app.py", "from streamstack import cli", "cli is above server"),
        ("__init__.py", "from streamstack.runtime import run", "runtime is above streamstack"),
        ("trace.py", "", "streamstack.trace: has no room"),
        ("language/validate.py", "import yaml", "only streamstack.language.source may"),
        ("language/graph.py", "from jinja2 import nodes", "imports jinja2: only"),
        ("language/validate.py", "import jsonschema.validators", "only streamstack.language.json_schema may"),
        ("testing/cases.py", "from aiohttp import web", "imports aiohttp: only"),
        ("server/app.py", "import asyncpg", "imports asyncpg: only streamstack.connections"),
        # However it is written, it is an import.
        ("errors.py", "def late():\n    import streamstack.language", "errors:2: imports"),
        ("errors.py", TYPE_ONLY + "import streamstack.cli", "errors:3: imports streamstack.cli: cli"),
        ("errors.py", "importlib.import_module('streamstack.cli')", "cli is above errors"),
        ("errors.py", "from streamstack.cli import *", "cli is above errors"),
        # Circles, in one room and through several modules of it.
        (
            "runtime/values.py",
            "from streamstack.runtime import run",
            "streamstack.runtime.run -> streamstack.runtime.values -> streamstack.runtime.run: a c",
        ),
        (
            "language/source.py",
            "from streamstack.language import read",
            "streamstack.language -> streamstack.language.source -> streamstack.language: a circle",
        ),
        ("errors.py", "import streamstack.errors", "streamstack.errors -> streamstack.errors"),
    ],
)
def test_fault_is_found(tmp_path: Path, file: str, source: str, fault: str) -> None:
    """Every arrow that the plan refuses is named, with its place."""
    faults = find_faults(build(tmp_path, SOUND | {file: source}))
    assert any(fault in each for each in faults), faults


def test_types_of_one_room_may_name_one_another(tmp_path: Path) -> None:
    """An import for types alone closes no circle."""
    imported = TYPE_ONLY + "from streamstack.runtime.run import Run"
    assert find_faults(build(tmp_path, SOUND | {"runtime/values.py": imported})) == []


def test_each_package_can_be_imported_first() -> None:
    """Whichever package a program begins with, its imports close no circle through a package's own file."""
    packages = [".".join(file.parent.relative_to(ENGINE.parent).parts) for file in sorted(ENGINE.rglob("__init__.py"))]
    program = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [each for each in sys.modules if each.startswith("streamstack")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    command = [sys.executable, "-c", program, *packages]
    done = subprocess.run(command, env={"PYTHONPATH": str(ENGINE.parent)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_validate_imports_no_client_and_no_server(tmp_path: Path) -> None:
    """Checking a project that calls upstreams and a database needs neither their libraries nor the event loop's."""
    (tmp_path / "all.yaml").write_text(
        "method: GET\npath: /all\nresponseType: streaming\nfunctionStack:\n"
        "  - http.request: https://api.example.org/one\n    as: one\n"
        "  - http.stream: https://api.example.org/many\n    as: many\n"
        "  - websocket.stream: wss://api.example.org/feed\n    as: feed\n"
        "  - llm.chat: {provider: openai, model: gpt-4o-mini, messages: Hello}\n    as: answer\n"
        "  - db.query: select 1 as one\n    as: rows\n"
        "  - stream: << [one.body, rows] >>\n"
        "  - streams.merge: [<< many >>, << feed >>, << answer >>]\n    as: all\n"
        "  - forEach: {in: << all >>, do: [{stream: << item >>}]}\n"
    )
    program = """
import sys
from streamstack.cli import main
try:
    main(["validate", sys.argv[1]])
except SystemExit:
    pass
print(sorted({"aiohttp", "asyncpg", "uvloop", "redis", "brotli", "cryptography"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ENGINE.parent)}, capture_output=True, text=True, check=False)
    assert "1 file checked, no problems" in done.stderr, done.stdout + done.stderr
    assert done.stdout.strip() == "[]"
