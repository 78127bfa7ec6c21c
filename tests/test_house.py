"""What every file keeps to: its name, and nothing of the machine it was made on."""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import streamstack

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "engine" / "streamstack"
MODULES = sorted(ENGINE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PINNED = ("runtime", "build", "dev")
#: Names that tell nothing of what is inside.
NAMELESS = {"utils", "util", "helpers", "helper", "base", "manager", "managers", "common", "misc"}

#: Paths of the machine something was made on, and hosts that packages come from.
FOREIGN = re.compile(
    r"""(?:(?<![\w./:-])|file://)/(?:
          (?:root|home/\w+|Users/\w+)/
        | work/(?:main|shared|\.)
        | opt/(?:wheels|pypi)
        | tmp/(?:design|bash_jobs)
        )
      | \bpypi\.org | pythonhosted\.org | registry\.npmjs\.org | registry\.yarnpkg\.com
      | \bdeb\.debian\.org | archive\.ubuntu\.com | proxy\.golang\.org
    """,
    re.VERBOSE,
)


#: Folders that hold what is installed, built or cached, beside those whose name begins with a dot.
NOT_OURS = {"node_modules", "dist", "__pycache__", ".venv", ".venv-litellm"}


def project_files() -> Iterator[Path]:
    """Give every file of the project, without asking git, which need not be there."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [each for each in folders if each not in NOT_OURS and (not each.startswith(".") or each == ".ci")]
        # In a worktree of git, `.git` is a file that names a folder of the machine.
        yield from (Path(folder) / name for name in names if name != ".git")


def lines_of(name: str) -> list[str]:
    """Return the lines of a requirements file, each with what it continues on, without comments."""
    text = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def pins_of(name: str) -> dict[str, str]:
    """Return what a requirements file pins: version by name."""
    matches = (re.match(r"([\w.-]+)==(\S+)", line) for line in lines_of(name))
    return {match[1]: match[2] for match in matches if match}


def test_modules_have_names_that_say_something() -> None:
    """No module or package is named for being useful instead of for what it holds."""
    assert [path for path in MODULES if {path.stem, path.parent.name} & NAMELESS] == []


def test_packages_say_what_they_hold() -> None:
    """Every folder of the engine with modules in it is a package with a docstring."""
    for folder in {path.parent for path in MODULES}:
        opening = folder / "__init__.py"
        assert opening.exists(), f"{folder} has no __init__.py"
        assert ast.get_docstring(ast.parse(opening.read_text("utf-8"))), f"{opening}: no docstring"


def test_nothing_names_the_machine_it_was_made_on() -> None:
    """No file holds a path of a developer's machine or the address of a package registry."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in project_files()
        if path.is_file()
        for match in FOREIGN.finditer(path.read_bytes().decode("latin-1"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /{}/main/engine".format("work"),
        "file:///{}/main".format("work"),
        "/{}/.pyenv/bin".format("root"),
        '"/{}/ada/x"'.format("home"),
        "https://{}.org/simple".format("pypi"),
        "https://registry.{}.org/x".format("npmjs"),
    ],
)
def test_what_names_the_machine_is_found(text: str) -> None:
    """The pattern knows such a path or address when it sees one."""
    assert FOREIGN.search(text)


@pytest.mark.parametrize(
    "text", ["GET /api/{}/main".format("work"), "https://shop.example/{}/x".format("root"), "~/home/"]
)
def test_what_only_looks_like_it_is_let_be(text: str) -> None:
    """A path of an endpoint or of an address is not a path of a machine."""
    assert not FOREIGN.search(text)


def test_licence_and_changelog_are_there() -> None:
    """The licence is the one that is declared; the changelog has a place for what comes next."""
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_version_is_in_one_place() -> None:
    """The version stands in the package alone, and is the one that is installed."""
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "engine/streamstack/__init__.py"
    assert [path for path in MODULES if "\n__version__ =" in path.read_text("utf-8")] == [ENGINE / "__init__.py"]
    assert version("streamstack") == streamstack.__version__, "run: make test (it installs again)"


@pytest.mark.parametrize("name", PINNED)
def test_requirements_are_pinned_by_hash_and_name_no_address(name: str) -> None:
    """Every line is one exact version with its hashes: no option, no address, no path."""
    lines = lines_of(f"{name}.txt")
    assert lines
    for line in lines:
        assert re.fullmatch(
            r"[\w.-]+(\[[\w,.-]+\])?==[\w.+!]+( ; [^/@]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line
        ), line
    comments = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    assert not re.search(r"://|--(index|extra-index|find-links|trusted-host)", comments)


def test_requirements_agree() -> None:
    """What is served and what is tested is the same: names, ranges and exact versions."""
    assert lines_of("runtime.in") == PROJECT["project"]["dependencies"]
    tested = pins_of("dev.txt")
    assert tested.items() >= (pins_of("runtime.txt") | pins_of("build.txt")).items()


def test_pinned_versions_are_within_the_bounds() -> None:
    """What is pinned may be installed, by the bounds of pyproject.toml, and each has a lower bound."""
    pinned = pins_of("runtime.txt")
    for line in PROJECT["project"]["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name]), line
        assert any(each.operator == ">=" for each in wanted.specifier), line


def test_ci_runs_what_the_readme_says() -> None:
    """The commands of the README are those of the Makefile, and CI calls the one for tests."""
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("serve", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}: " in makefile
    assert "\nmake test " in (ROOT / ".ci" / "run").read_text("utf-8")


def test_no_group_is_repeated_possessively() -> None:
    """Python before 3.11.5 misses matches of `(...)*+` (CPython issue 106052); `(?>(...)*)` says the same."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, (str, bytes)):
                continue
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            outside = re.sub(r"\[(?:\\.|[^\]\\])*\]", "", text)  # of sets of characters
            if re.search(r"(?<!\\)\)[*+?]\+", outside):
                found.add(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == set()


# ---------------------------------------------------------------------------------------- words

#: Private and inverted wording, each with what technical English says instead.
PRIVATE_WORDS = {
    r"whoever|whomever": "the client, the caller, the process",
    r"somebody": "a client, a process, another request",
    r"nobody": "no client, unused, unknown",
    r"anew": "again",
    r"take note": "record",
    r"told of|tells? of|(?:is|are) told(?! apart)": "reports, is informed of, receives",
    r"passed over": "skipped",
    r"where there (?:is|are|was|were) no\b": "without",
    r"(?<!there )(?:is|are) no (?!longer|more|less)": "is not a",
    r"lets? (?:in|be)\b": "accept, ignore, leave unchanged",
}
#: In messages also what is fine in a sentence of the docs: "there is no file x" says less than "no such file: x".
_OF_MESSAGES = r"(?<!if )(?<!while )there (?:is|are|was|were) (?:no|none)\b"
_PRIVATE = re.compile("|".join(rf"\b(?:{words})" for words in PRIVATE_WORDS), re.IGNORECASE)
#: The user of Unix, and names in examples.
_NAMED = re.compile(r"`nobody`|\"nobody\"|<<nobody>>|default: nobody|NOBODY")
PROSE = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("docs/*.py"),
        *(
            each
            for folder in ("definitions", "examples", "deploy")
            for each in (ROOT / folder).rglob("*")
            if each.is_file()
        ),
    ]
)


def _prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that people read: of a module its docstrings, comments and texts, else all of them."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), token.start[0])


def _messages_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that are not docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_messages_say_what_is_missing() -> None:
    """No message begins with what there is not: it names the thing first, or says `no such file: x`."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in MODULES
        for line, text in _messages_of(path)
        if re.search(_OF_MESSAGES, text, re.IGNORECASE)
    ]
    assert "\n".join(found) == ""


@pytest.mark.parametrize("folder", ["docs", "engine", "tests", "benchmarks"])
def test_prose_is_plain_technical_english(folder: str) -> None:
    """README, docs, messages, docstrings and comments have none of the words that only this project would use."""
    files = {"docs": PROSE, "engine": MODULES}.get(folder) or [
        path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__) and not NOT_OURS & {*path.parts}
    ]
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}: {text.strip()}"
        for path in files
        for line, text in _prose_of(path)
        for match in _PRIVATE.finditer(_NAMED.sub("", text))
    ]
    assert "\n".join(found) == ""


#: Parts of names that say nothing to a reader who has built servers, or are the words of a person.
_PRIVATE_NAMES = frozenset(
    [
        "told",
        "tell",
        "tells",
        "telling",
        "given",
        "asked",
        "asks",
        "kept",
        "anew",
        "let",
        "lets",
        "whoever",
        "whomever",
        "nobody",
        "somebody",
        "breathe",
        "heed",
        "hurry",
        "bury",
        "lives",
        "heart",
    ]
)


def _named_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what a module gives names to: definitions, parameters, variables, attributes, renamed imports."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def test_names_are_terms_of_the_field() -> None:
    """No class, function, parameter, variable or attribute of the engine has a private word in its name."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        for line, name in _named_in(ast.parse(path.read_text("utf-8")))
        if {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)} & _PRIVATE_NAMES
    ]
    assert "\n".join(found) == ""
