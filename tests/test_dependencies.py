"""The engine uses the public API of its dependencies: no private name, and no text of their errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ENGINE = Path(__file__).parent.parent / "engine" / "streamstack"

#: Names with an underscore that are documented: (owner, name), `*` for any owner.
DOCUMENTED = {
    ("os", "_exit"),
    ("sys", "_getframe"),
    ("*", "_replace"),  # of named tuples
    ("*", "_asdict"),
    ("*", "_fields"),
    ("*", "_fields_"),  # of ctypes' structures
}

_ERROR_TEXTS = {"startswith", "endswith", "find", "index", "partition", "rpartition", "split"}
_MATCHERS = {"match", "search", "fullmatch", "findall", "finditer"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One use of what a dependency does not promise."""

    file: str
    line: int
    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name} ({self.where})"


class _Module:
    """One module of the engine: what it imports, and which private names it defines itself."""

    def __init__(self, name: str, tree: ast.Module, own: str) -> None:
        self.name = name
        self.tree = tree
        self.own = own
        self.imports = dict(_imports(tree))
        self.defined = _defined(tree)

    def is_foreign(self, name: str) -> bool:
        """Tell whether a name of this module was imported from outside the engine."""
        origin = self.imports.get(name)
        return origin is not None and not _within(origin, self.own)


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith((f"{package}.", "."))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    alias.name if alias.asname else alias.name.partition(".")[0],
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, "." * node.level + (node.module or "")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _defined(tree: ast.AST) -> set[str]:
    """Return the private names that classes and functions of a module define."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            found |= {
                each.value
                for each in ast.walk(node.value)
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            }
    return {each for each in found if _is_private(each)}


# ------------------------------------------------------------------------------- private names


class _Private(ast.NodeVisitor):
    """Finds private names of others in one module."""

    def __init__(self, file: str, module: _Module) -> None:
        self._file = file
        self._module = module
        self._classes: list[str] = []
        self._types: list[dict[str, str]] = []  # of parameters: the root name of each annotation
        self.faults: list[Fault] = []

    def _fault(self, line: int, name: str, where: str) -> None:
        self.faults.append(Fault(self._file, line, name, where))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if not _within(alias.name, self._module.own) and any(map(_is_private, alias.name.split("."))):
                self._fault(node.lineno, alias.name, "imported")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        if _within(module, self._module.own) or module in ("__future__", "_typeshed"):
            return
        for alias in node.names:
            if any(map(_is_private, (*module.split("."), alias.name))):
                self._fault(node.lineno, f"{module}.{alias.name}", "imported")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._classes.append(node.name)
        qualified = ".".join(self._classes)
        for name, line in _own_names(node):
            base = _foreign_base_with(self._module.name, qualified, name)
            if base is not None:
                self._fault(line, name, f"{node.name} is a {base}")
        self.generic_visit(node)
        self._classes.pop()

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self._types.append({each.arg: _root(each.annotation) for each in arguments if each.annotation is not None})
        self.generic_visit(node)
        self._types.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load) and self._module.is_foreign(_root(node)):
            self._fault(node.lineno, ast.unparse(node), "patched")
        self._look(node.lineno, node.value, node.attr)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load) and ast.unparse(node.value) == "sys.modules":
            self._fault(node.lineno, "sys.modules", "patched")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if (
            isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            and len(node.args) > 1
            and isinstance(node.args[1], ast.Constant)
            and isinstance(node.args[1].value, str)
        ):
            self._look(node.lineno, node.args[0], node.args[1].value)
        self.generic_visit(node)

    def _look(self, line: int, owner: ast.expr, name: str) -> None:
        if not _is_private(name):
            return
        shown = ast.unparse(owner)
        if shown in ("self", "cls", "super()"):
            return  # see visit_ClassDef
        if (shown, name) in DOCUMENTED or ("*", name) in DOCUMENTED:
            return
        root = _root(owner)
        types = {name: kind for each in self._types for name, kind in each.items()}
        foreign = self._module.is_foreign(root) or self._module.is_foreign(types.get(shown, ""))
        if foreign or name not in self._module.defined:
            self._fault(line, name, f"of {shown}")


def _root(node: ast.expr | None) -> str:
    """Return the first name of a dotted one: `web` of `web.Request | None`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return _root(ast.parse(node.value, mode="eval").body)
        except SyntaxError:
            return ""
    if isinstance(node, ast.Attribute):
        return _root(node.value)
    if isinstance(node, ast.BinOp):
        return _root(node.left)
    return node.id if isinstance(node, ast.Name) else ""


def _own_names(node: ast.ClassDef) -> Iterator[tuple[str, int]]:
    """Yield the private names that a class uses of itself, and those that it defines."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and _is_private(each.name):
            yield each.name, each.lineno
    for inner in ast.walk(node):
        if (
            isinstance(inner, ast.Attribute)
            and _is_private(inner.attr)
            and ast.unparse(inner.value) in ("self", "cls", "super()")
        ):
            yield inner.attr, inner.lineno


def _foreign_base_with(module: str, qualified: str, name: str) -> str | None:
    """Return the base class outside the engine that has this private name; None where there is none."""
    if ("*", name) in DOCUMENTED:
        return None
    try:
        found: object = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None  # of another system, or a class inside a function
    if not isinstance(found, type):
        return None
    package = module.partition(".")[0]
    for base in found.__mro__[1:]:
        if base is object or _within(base.__module__, package) or base.__module__ == "typing":
            continue
        if name in _names_of(base):
            return f"{base.__module__}.{base.__qualname__}"
    return None


@cache
def _names_of(base: type) -> frozenset[str]:
    """Return the private names of a class: those it defines, and those it gives to `self`."""
    names = set(vars(base))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
    except (OSError, TypeError, SyntaxError):
        return frozenset(names)  # written in C
    names |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return frozenset(filter(_is_private, names))


# --------------------------------------------------------------------------------- error texts


def _error_texts(file: str, tree: ast.Module) -> Iterator[Fault]:
    """Yield the places that decide by the text of an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name:
            yield from _texts_of(file, node.body, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs):
                if argument.annotation is not None and _is_error(argument.annotation):
                    yield from _texts_of(file, node.body, argument.arg)


def _is_error(annotation: ast.expr) -> bool:
    return any(
        name.endswith(("Error", "Exception"))
        for node in ast.walk(annotation)
        for name in [getattr(node, "id", getattr(node, "attr", ""))]
    )


def _texts_of(file: str, body: list[ast.stmt], error: str) -> Iterator[Fault]:
    texts = {error}  # names that hold the text
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign) and _has_text(node.value, error, texts - {error}):
                texts |= {each.id for each in node.targets if isinstance(each, ast.Name)}
    held = texts - {error}
    for statement in body:
        for node in ast.walk(statement):
            line = getattr(node, "lineno", 0)
            looked: list[ast.expr] = []
            if isinstance(node, ast.Compare):
                looked = [node.left, *node.comparators]
            elif isinstance(node, ast.Match):
                looked = [node.subject]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in _ERROR_TEXTS:
                    looked = [node.func.value]
                elif node.func.attr in _MATCHERS:
                    looked = node.args
            if any(_has_text(each, error, held) for each in looked):
                yield Fault(file, line, "error-text", ast.unparse(node))


def _has_text(node: ast.expr, error: str, held: set[str]) -> bool:
    """Tell whether an expression is, or is made of, the text of an error."""
    for each in ast.walk(node):
        match each:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
                if name == error:
                    return True
            case ast.Attribute(value=ast.Name(id=name), attr="args"):
                if name == error:
                    return True
            case ast.Name(id=name):
                if name in held:
                    return True
    return False


# ------------------------------------------------------------------------------------ the tests


def find_faults(package: Path) -> list[Fault]:
    """List what a package uses of others that they do not promise."""
    faults: set[Fault] = set()
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text("utf-8"), str(path))
        file = str(path.relative_to(package))
        private = _Private(file, _Module(name, tree, package.name))
        private.visit(tree)
        faults |= {*private.faults, *_error_texts(file, tree)}
    return sorted(faults, key=lambda fault: (fault.file, fault.line, fault.name))


def test_engine_uses_what_its_dependencies_promise() -> None:
    """No private name of a dependency, and no decision by the text of its errors."""
    assert "\n".join(map(str, find_faults(ENGINE))) == ""


SOUND = """
from aiohttp import web
from collections import namedtuple

class Handler(web.View):
    def __init__(self, other: "Handler"):
        self._ours = 1
        other._ours = 2

    def _again(self):
        return self._again()

try:
    pass
except ValueError as error:
    print(f"it failed: {error}", error.args)
    if error.code == "x" or isinstance(error, KeyError):
        raise ValueError(str(error))
"""


def _faults_of(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    package = folder / "housed"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "handler.py").write_text(source, "utf-8")
    monkeypatch.syspath_prepend(folder)
    for name in ("housed", "housed.handler"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    try:
        return [str(each) for each in find_faults(package)]
    finally:
        for name in ("housed", "housed.handler"):
            sys.modules.pop(name, None)


def test_own_private_names_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may use its own private names, tell errors by their types, and hand their texts on."""
    assert _faults_of(SOUND, tmp_path, monkeypatch) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("import aiohttp._websocket", "aiohttp._websocket (imported)"),
        ("from aiohttp.web_protocol import _ErrInfo", "aiohttp.web_protocol._ErrInfo (imported)"),
        ("from re import _parser", "re._parser (imported)"),
        ("def f(x):\n    return x._theirs", "_theirs (of x)"),
        ("def f(x):\n    return getattr(x, '_theirs', None)", "_theirs (of x)"),
        ("def f(x):\n    return x.transport._ours_not", "_ours_not (of x.transport)"),
        # Named like ours, but its type says that it is theirs.
        ("def f(x: web.Request):\n    return x._ours", "_ours (of x)"),
        ("def f(x: 'web.Request | None'):\n    return x._ours", "_ours (of x)"),
        ("def f():\n    return web._ours", "_ours (of web)"),
        ("class S(web.View):\n    def f(self):\n        return self._request", "_request (S is a"),
        ("class S(web.View):\n    def f(self):\n        self._request = 1", "_request (S is a"),
        ("class S(web.Request):\n    def _rel_url(self): pass", "_rel_url (S is a"),
        # Through a class of ours.
        ("class S(Handler):\n    def f(self):\n        return self._request", "_request (S is a"),
        ("def f():\n    web.View = None", "web.View (patched)"),
        ("import sys\ndef f():\n    sys.modules['x'] = None", "sys.modules (patched)"),
        ("try: pass\nexcept OSError as e:\n    if 'x' in str(e): pass", "error-text"),
        ("try: pass\nexcept OSError as e:\n    if e.args[0] == 5: pass", "error-text"),
        ("try: pass\nexcept OSError as e:\n    t = str(e)\n    'x' in t.lower()", "error-text"),
        ("try: pass\nexcept OSError as e:\n    str(e).startswith('x')", "error-text"),
        ("import re\ntry: pass\nexcept OSError as e:\n    re.search('x', str(e))", "error-text"),
        ("def f(e: OSError):\n    pass\ndef g(e: ValueError):\n    return 'x' in str(e)", "error"),
    ],
)
def test_what_is_private_is_found(line: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to a private name, or to the text of an error, is named with its place."""
    (found,) = _faults_of(f"{SOUND}\n{line}\n", tmp_path, monkeypatch)
    assert fault in found
