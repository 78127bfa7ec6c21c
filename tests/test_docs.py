"""The documentation is true: its YAML validates, its commands print what it shows, its links lead somewhere.

`STREAMSTACK_WRITE_DOCS=1 pytest tests/test_docs.py` writes what the commands print into the pages:
read what changed before you commit it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from docs import generate
from streamstack.cli import COMMANDS, main
from streamstack.errors import ERRORS, Diagnostic
from streamstack.formats import BY_MEDIA_TYPE
from streamstack.functions import REGISTRY
from streamstack.language.filters.operations import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS
from streamstack.language.findings import FINDINGS
from streamstack.language.keys import CONSTRAINTS, INPUT_KEYS, MODIFIERS, TYPES
from streamstack.language.names import RESERVED
from streamstack.language.project import read_project, read_tests, validate
from streamstack.language.settings import Resume, Streaming, load_settings
from streamstack.server.app import serving_locally
from streamstack.spec import fields_of
from tests.documents import ROOT, Block, Command, Page, is_generated, is_streamstack, pages, read_page, write_project

PAGES = pages()
REFERENCE = [read_page(path) for path in sorted((ROOT / "docs" / "reference").glob("*.md")) if is_generated(path)]
WRITE = "STREAMSTACK_WRITE_DOCS" in os.environ

#: Words that a part of an endpoint may leave to the rest of it.
_HARMLESS = frozenset({"unused-variable", "unused-input"})


def named(page: Page) -> str:
    """Return a page's name for the report."""
    return page.name


# ---------------------------------------------------------------------------------- reference


def test_reference_is_fresh() -> None:
    """The pages of the reference are what the declarations give, and there are no others."""
    written = generate.pages()
    found = {page.path.name: "\n".join(page.lines) for page in REFERENCE}
    assert sorted(found) == sorted(written)
    for name, text in written.items():
        assert found[name] == text, f"docs/reference/{name}: run: make docs"


def test_everything_is_in_the_reference() -> None:
    """Each function, operation and finding is in the reference, and no heading is left over."""
    texts = {page.path.name: page.prose for page in REFERENCE}
    headings = {name: set(re.findall(r"^### `(.+)`$", text, re.MULTILINE)) for name, text in texts.items()}
    assert headings["functions.md"] == set(REGISTRY)
    assert headings["findings.md"] == set(FINDINGS)
    operations = [*FILTERS.values(), *FUNCTIONS_OF_EXPRESSIONS.values(), *TESTS.values()]
    expressions = texts["filters.md"].replace("\\|", "|")
    assert [each.name for each in operations if f"| {each.usage} |" not in expressions] == []


# --------------------------------------------------------------------------------------- YAML


def wrapped(block: Block) -> str:
    """Return a part of an endpoint as a whole one."""
    if "stack" in block.words:
        inputs = sorted(set(re.findall(r"\binput\.(\w+)", block.text)))
        declared = "".join(f"  {name}: {{type: json, required: true}}\n" for name in inputs)
        streams = re.search(r"\b(stream|done): |^- (stream|done):$", block.text, re.MULTILINE)
        kind = "streaming" if streams else "json"
        body = "".join(f"  {line}\n" for line in block.text.split("\n"))
        return (
            # The endpoints that it calls are elsewhere.
            f"method: POST\npath: /part\nresponseType: {kind}\nallow: [unknown-path]\n"
            + (f"inputParameters:\n{declared}" if declared else "")
            + f"functionStack:\n{body}"
        )
    if "inputs" in block.words:
        body = "".join(f"  {line}\n" for line in block.text.split("\n"))
        return f"method: POST\npath: /part\ninputParameters:\n{body}functionStack:\n  - stream: part\n"
    text = block.text
    for key, value in (("method", "POST"), ("path", "/part"), ("functionStack", "[{stream: part}]")):
        if not re.search(rf"^{key}:", text, re.MULTILINE):
            text = f"{key}: {value}\n{text}"
    return text


def findings_of(block: Block) -> list[Diagnostic]:
    """Validate a block without a title."""
    if "settings" in block.words:
        # Beside the page's project, which has the files that settings name.
        return load_settings(block.text, "definitions/streamstack.yaml", os.environ)[1]
    if "test" in block.words:
        body = "".join(f"    {line}\n" for line in block.text.split("\n"))
        checked = read_project(Path("definitions"), REGISTRY, os.environ)
        Path("block.test.yaml").write_text(f"tests:\n  - name: block\n{body}", "utf-8")
        return read_tests(checked, [Path("block.test.yaml")])[1]
    part = block.words & {"stack", "inputs", "endpoint"}
    text = wrapped(block) if part else block.text
    found = validate({"block.yaml": text}, REGISTRY, Streaming(), None)[1]
    return [each for each in found if not part or each.code not in _HARMLESS]


def told(findings: list[Diagnostic]) -> list[str]:
    """Return findings in words."""
    return [f"{each.mark}: {each.code}: {each.message}" for each in findings]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_yaml_validates(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of YAML is right, but for those that say that they are wrong."""
    write_project(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in page.blocks:
        assert block.language not in ("yml", "YAML"), f"{page.name}:{block.line}: write ```yaml"
        if block.language != "yaml" or block.title:
            continue
        found = findings_of(block)
        place = f"{page.name}:{block.line}"
        if "wrong" in block.words:
            assert found, f"{place}: nothing is wrong here"
        else:
            assert told(found) == [], place
    wrong = {block.title for block in page.blocks if "wrong" in block.words}
    for block in page.blocks:
        if block.title.startswith(".github"):
            yaml.safe_load(block.text)
    checked = read_project(Path("definitions"), REGISTRY, os.environ)
    assert told([each for each in checked.findings if each.file not in wrong]) == []


# ------------------------------------------------------------------------------------ console


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the project in a folder; give host and port."""
    checked = read_project(folder / "definitions", REGISTRY, os.environ)
    with serving_locally(checked, os.environ, dev=False) as address:
        yield address.removeprefix("http://")


def run(command: Command, address: str) -> str:
    """Run a command of a page, and return what it prints."""
    if is_streamstack(command.text):
        result = CliRunner().invoke(main, shlex.split(command.text)[1:], prog_name="streamstack")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.output
    first = shlex.split(command.text)[0]
    assert first == "curl", f"{command.text}: only curl and streamstack are run; use a sh block"
    text = command.text.replace("localhost:8080", address)
    done = subprocess.run(
        ["bash", "-c", text.replace("curl ", "curl -sS ", 1)], capture_output=True, timeout=60, check=False
    )
    return (done.stdout + done.stderr).decode().replace("\r\n", "\n")


#: What differs from run to run, and what it counts as.
_VARYING = [
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
    (r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b", "<id>"),
    (r"[A-Za-z0-9_-]{22}/(?=\d)", "<stream>/"),
    (r"(?m)^Date: .*$", "Date: <date>"),
    (r'("(?:elapsedMs|processingTime)":)\d+', r"\1<ms>"),
    (r" *\b\d+\.\d (ms|s)\b", " <ms>"),
    (r"\(\d+ bytes\)", "(<size>)"),
    # definitions/ may hold files of a reader of the guide.
    (r"\bin \d+ files\b", "in <count> files"),
    (r"\b\d+ files checked\b", "<count> files checked"),
    (r"127\.0\.0\.1:\d+", "localhost:8080"),
]


def alike(text: str) -> str:
    """Return a text without what differs from run to run."""
    text = text.replace("\r\n", "\n")
    for pattern, constant in _VARYING:
        text = re.sub(pattern, constant, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


@pytest.mark.parametrize("page", [page for page in PAGES if any(page.commands())], ids=named)
def test_commands_print_what_the_page_shows(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    """What a page shows below a command is what the command prints, times and ids aside."""
    assert shutil.which("curl"), "the pages are tested with curl: install it"
    write_project(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    # The definitions' database is an empty one of this test: their schema makes it the same each time.
    monkeypatch.setenv("DATABASE_URL", postgres)
    differs = []
    with served(tmp_path) as address:
        for command in page.commands():
            printed = run(command, address)
            if WRITE and alike(printed) != alike(command.output):
                differs.append((command, printed.replace(address, "localhost:8080")))
            elif not WRITE:
                assert alike(printed) == alike(command.output), f"{page.name}: $ {command.text}"
    if WRITE:
        lines = list(page.lines)
        for command, printed in reversed(differs):
            shown = printed.strip("\n").split("\n")
            lines[command.begin : command.end] = [line.rstrip() for line in shown if printed]
        page.path.write_text("\n".join(lines), "utf-8")


# -------------------------------------------------------------------------------- names, links


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE], ids=named)
def test_links_lead_somewhere(page: Page) -> None:
    """Each link inside the project leads to a file, and to a heading of it."""
    for link in page.links():
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in read_page(target).anchors(), f"{page.name}: {link}"


def words_of(page: Page) -> frozenset[str]:
    """Return the code in a page's sentences."""
    return frozenset(re.findall(r"`([^`\n]+)`", page.prose))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_in_sentences_exist(page: Page) -> None:
    """Functions, filters, commands and codes that a page speaks of exist."""
    shown = "\n".join(block.text for block in page.blocks)
    families = {name.partition(".")[0] for name in REGISTRY if "." in name}
    for word in words_of(page):
        place = f"{page.name}: {word}"
        family, dot, _ = word.partition(".")
        if dot and family in families and re.fullmatch(r"\w+\.\w+", word):
            assert word in REGISTRY, place
        for name in re.findall(r"(?<!\|)\| (\w+)", word):
            assert name in FILTERS or name in shown, place
        if match := re.match(r"streamstack ([a-z]+)", word):
            assert match[1] in COMMANDS, place
        if re.fullmatch(r"[a-z]+(-[a-z]+)+", word):
            assert word in FINDINGS or word in ERRORS or word in shown, place


def test_every_page_is_in_the_site_and_in_the_readme() -> None:
    """The site's navigation and README's table of documents name every page of docs/."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    listed = [page for section in site["nav"] for pages in section.values() for page in as_list(pages)]
    found = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    assert sorted(listed) == found
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page for page in found if page != "index.md" and f"](docs/{page})" not in readme] == []


def as_list(pages: str | list[str]) -> list[str]:
    """Return one page or several as a list."""
    return [pages] if isinstance(pages, str) else pages


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("tutorial/endpoints.md", [*TYPES, *[each.name for each in INPUT_KEYS], *CONSTRAINTS]),
        ("tutorial/steps.md", [each.name for each in MODIFIERS]),
        ("how-to/configuration.md", [each.name for each in fields_of(Streaming)]),
        ("how-to/resume-and-cancel.md", [each.name for each in fields_of(Resume)]),
        ("tutorial/bindings.md", RESERVED),
        ("tutorial/sending-chunks.md", BY_MEDIA_TYPE),
    ],
)
def test_every_name_is_explained(page: str, names: list[str]) -> None:
    """What the language has is on the page where a reader looks for it."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    assert [name for name in names if f"`{name}`" not in text and f"`{name}." not in text] == []
